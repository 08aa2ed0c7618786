module sojourn.test/httpload

go 1.24.0
