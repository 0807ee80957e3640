package limit

import (
	"bytes"
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonField finds a field at the top of a JSON object without decoding the rest. As in
// decoding, the last of several holds; without a descriptor capitals make no difference,
// as they make none to encoding/json. What is no JSON has no fields: the handler refuses
// it.
func jsonField(body []byte, name string, fd protoreflect.FieldDescriptor) value {
	text := value{s: absent(fd)}
	s := scanner{body, 0}
	if !s.take('{') {
		return text
	}
	for first := true; ; first = false {
		s.space()
		if s.peek() == '}' || !first && !s.take(',') {
			return text
		}
		s.space()
		key, ok := s.quoted()
		if !ok || !s.take(':') {
			return text
		}
		s.space()
		from := s.at
		if !s.skip() {
			return text
		}
		if names(unquote(key), name, fd) {
			text = jsonText(body[from:s.at], fd)
		}
	}
}

// absent is the text of a field that is not there.
func absent(fd protoreflect.FieldDescriptor) string {
	if fd == nil {
		return ""
	}
	return protoText(fd, fd.Default())
}

func names(key value, name string, fd protoreflect.FieldDescriptor) bool {
	switch {
	case fd != nil:
		return key.is(string(fd.Name())) || key.is(fd.JSONName())
	case key.b != nil:
		return bytes.EqualFold(key.b, []byte(name))
	}
	return strings.EqualFold(key.s, name)
}

// jsonText is the text of a JSON value.
func jsonText(v []byte, fd protoreflect.FieldDescriptor) value {
	if len(v) == 0 {
		return value{s: absent(fd)}
	}
	switch v[0] {
	case '"':
		text := unquote(v)
		if fd != nil && fd.Kind() != protoreflect.StringKind {
			return value{s: described(fd, text.text(), true)}
		}
		return text
	case '{', '[':
		return value{}
	case 'n':
		return value{s: absent(fd)}
	case 't', 'f':
		return value{b: v}
	}
	return value{s: described(fd, numberText(string(v)), false)}
}

// unquote returns the text of a JSON string with its quotes.
func unquote(v []byte) value {
	inner := v[1 : len(v)-1]
	for _, c := range inner {
		if c == '\\' || c >= 0x80 {
			var s string
			if json.Unmarshal(v, &s) != nil {
				return value{}
			}
			return value{s: s}
		}
	}
	return value{b: inner}
}

// scanner goes over JSON without checking more than it needs.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) space() {
	for s.at < len(s.b) && (s.b[s.at] == ' ' || s.b[s.at] == '\t' || s.b[s.at] == '\n' || s.b[s.at] == '\r') {
		s.at++
	}
}

func (s *scanner) peek() byte {
	if s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	s.space()
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

// quoted takes a string and returns it with its quotes.
func (s *scanner) quoted() ([]byte, bool) {
	if s.peek() != '"' {
		return nil, false
	}
	for i := s.at + 1; i < len(s.b); i++ {
		switch s.b[i] {
		case '\\':
			i++
		case '"':
			v := s.b[s.at : i+1]
			s.at = i + 1
			return v, true
		}
	}
	return nil, false
}

// skip goes past one value.
func (s *scanner) skip() bool {
	depth := 0
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case '"':
			if _, ok := s.quoted(); !ok {
				return false
			}
			if depth == 0 {
				return true
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return false
			}
			if depth == 0 {
				s.at++
				return true
			}
		case ',', ' ', '\t', '\n', '\r', ':':
			if depth == 0 {
				return false
			}
		default:
			if depth == 0 {
				return s.word()
			}
		}
		s.at++
	}
	return false
}

// word goes past a number, true, false or null.
func (s *scanner) word() bool {
	from := s.at
	for s.at < len(s.b) && !strings.ContainsRune(" \t\n\r,:{}[]\"", rune(s.b[s.at])) {
		s.at++
	}
	return s.at > from
}
