module example.org/note

go 1.24
