package main

// The digest of one request, as docs/request-digests.md has it.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

const exact = 1 << 53 // whole numbers up to here are the same to every JSON parser

func ofHTTP(method, target string, content []byte) (string, error) {
	return ofJSON(map[string]any{"method": method, "target": target, "content": sha256Of(content)})
}

func ofGRPC(method string, message []byte) (string, error) {
	return ofJSON(map[string]any{"method": method, "message": sha256Of(message)})
}

// ofTool: the arguments are a JSON object.
func ofTool(tool string, arguments []byte) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(arguments))
	decoder.UseNumber() // a float64 would not say whether it was a whole number
	var read map[string]any
	if err := decoder.Decode(&read); err != nil {
		return "", err
	}
	return ofJSON(map[string]any{"tool": tool, "arguments": read})
}

func ofJSON(value map[string]any) (string, error) {
	var text strings.Builder
	if err := canonical(&text, value); err != nil {
		return "", err
	}
	return sha256Of([]byte(text.String())), nil
}

// canonical writes a value as RFC 8785 has it, for what a digest may be of.
func canonical(to *strings.Builder, value any) error {
	switch value := value.(type) {
	case nil:
		to.WriteString("null")
	case bool:
		to.WriteString(strconv.FormatBool(value))
	case string:
		quoted(to, value)
	case json.Number:
		number, err := strconv.ParseInt(value.String(), 10, 64)
		if err != nil || number > exact || number < -exact {
			return fmt.Errorf("%s is no whole number of at most 53 bits: send it as text", value)
		}
		to.WriteString(strconv.FormatInt(number, 10))
	case []any:
		to.WriteByte('[')
		for index, each := range value {
			if index > 0 {
				to.WriteByte(',')
			}
			if err := canonical(to, each); err != nil {
				return err
			}
		}
		to.WriteByte(']')
	case map[string]any:
		names := make([]string, 0, len(value))
		for name := range value {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int {
			return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
		})
		to.WriteByte('{')
		for index, name := range names {
			if index > 0 {
				to.WriteByte(',')
			}
			quoted(to, name)
			to.WriteByte(':')
			if err := canonical(to, value[name]); err != nil {
				return err
			}
		}
		to.WriteByte('}')
	default:
		return fmt.Errorf("%T is no JSON", value)
	}
	return nil
}

// quoted writes a text with no more escapes than there must be: json.Marshal has some for HTML.
func quoted(to *strings.Builder, text string) {
	short := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}
	to.WriteByte('"')
	for _, char := range text {
		if escape, is := short[char]; is {
			to.WriteString(escape)
		} else if char < ' ' {
			fmt.Fprintf(to, `\u%04x`, char)
		} else {
			to.WriteRune(char)
		}
	}
	to.WriteByte('"')
}

// printDigests prints one line for each vector of a file such as request-digests.json: its digest, or that it has none.
func printDigests(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var vectors struct {
		HTTP []struct {
			Method, Target string
			Content        []byte `json:"content_base64"`
		}
		GRPC []struct {
			Method  string
			Message []byte `json:"message_base64"`
		}
		MCP []struct {
			Tool      string
			Arguments json.RawMessage
		}
		Refused []struct {
			Arguments string `json:"arguments_json"`
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		return err
	}
	for _, each := range vectors.HTTP {
		printDigest(ofHTTP(each.Method, each.Target, each.Content))
	}
	for _, each := range vectors.GRPC {
		printDigest(ofGRPC(each.Method, each.Message))
	}
	for _, each := range vectors.MCP {
		printDigest(ofTool(each.Tool, each.Arguments))
	}
	for _, each := range vectors.Refused {
		printDigest(ofTool("any", []byte(each.Arguments)))
	}
	return nil
}

func printDigest(digest string, err error) {
	if err != nil {
		digest = "refused"
	}
	fmt.Println(digest)
}
