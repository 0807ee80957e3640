package ipcwire

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonScanner goes over a JSON text and checks all of it, because a receiver that
// cannot decode a message may never recover.
type jsonScanner struct {
	b  []byte
	at int
}

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func (s *jsonScanner) blank() {
	for s.at < len(s.b) && space(s.b[s.at]) {
		s.at++
	}
}

func (s *jsonScanner) fail(what string) error {
	if s.at >= len(s.b) {
		return fmt.Errorf("the JSON ends after %d bytes, %s was expected", len(s.b), what)
	}
	return fmt.Errorf("byte %d of the JSON is %q, %s was expected", s.at, s.b[s.at], what)
}

// peek returns the next byte, or zero at the end.
func (s *jsonScanner) peek() byte {
	if s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

// value goes over one value.
func (s *jsonScanner) value(depth int) (Kind, error) {
	switch c := s.peek(); c {
	case '{':
		return Object, s.object(depth, nil)
	case '[':
		return Array, s.array(depth)
	case '"':
		_, err := s.text()
		return String, err
	case 't':
		return Bool, s.word("true")
	case 'f':
		return Bool, s.word("false")
	case 'n':
		return Null, s.word("null")
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return Number, s.number()
		}
		return Absent, s.fail("a value")
	}
}

func (s *jsonScanner) word(w string) error {
	if len(s.b)-s.at < len(w) || string(s.b[s.at:s.at+len(w)]) != w {
		return s.fail(w)
	}
	s.at += len(w)
	return nil
}

// text goes over a string and reports whether it has escapes.
func (s *jsonScanner) text() (escaped bool, err error) {
	if s.peek() != '"' {
		return false, s.fail("a string")
	}
	for s.at++; s.at < len(s.b); s.at++ {
		switch c := s.b[s.at]; {
		case c == '"':
			s.at++
			return escaped, nil
		case c < 0x20:
			return false, s.fail("no control character inside a string")
		case c == '\\':
			escaped = true
			s.at++
			if err := s.escape(); err != nil {
				return false, err
			}
		}
	}
	return false, s.fail("the end of a string")
}

// escape goes over what follows a backslash, but for its last byte.
func (s *jsonScanner) escape() error {
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			s.at++
			if _, ok := hex(s.peek()); !ok {
				return s.fail("a hexadecimal digit")
			}
		}
		return nil
	}
	return s.fail("an escape")
}

func hex(c byte) (rune, bool) {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0'), true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return rune(c|0x20-'a') + 10, true
	}
	return 0, false
}

func (s *jsonScanner) digits() error {
	from := s.at
	for s.peek() >= '0' && s.peek() <= '9' {
		s.at++
	}
	if s.at == from {
		return s.fail("a digit")
	}
	return nil
}

func (s *jsonScanner) number() error {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.peek() == '.' {
		s.at++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if s.peek()|0x20 == 'e' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		return s.digits()
	}
	return nil
}

func (s *jsonScanner) array(depth int) error {
	if depth >= maxNesting {
		return fmt.Errorf("values lie in each other more than %d deep", maxNesting)
	}
	s.at++
	s.blank()
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		s.blank()
		if _, err := s.value(depth + 1); err != nil {
			return err
		}
		s.blank()
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return s.fail("a comma or the end of the array")
		}
	}
}

// object goes over an object and shows each field to f, unless that is nil.
func (s *jsonScanner) object(depth int, f fields) error {
	if depth >= maxNesting {
		return fmt.Errorf("values lie in each other more than %d deep", maxNesting)
	}
	s.at++
	s.blank()
	if s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		s.blank()
		from := s.at
		escaped, err := s.text()
		if err != nil {
			return err
		}
		key := s.b[from:s.at]
		s.blank()
		if s.peek() != ':' {
			return s.fail("a colon")
		}
		s.at++
		s.blank()
		from = s.at
		kind, err := s.value(depth + 1)
		if err != nil {
			return err
		}
		if f != nil {
			v := Value{Kind: kind, enc: JSON, Raw: s.b[from:s.at:s.at]}
			if kind == String {
				v.Text = jsonText(v.Raw)
			}
			name := key[1 : len(key)-1]
			if escaped {
				name = unescape(nil, key)
			}
			f.field(name, v)
		}
		s.blank()
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return s.fail("a comma or the end of the object")
		}
	}
}

// jsonText is what a string literal says; without escapes that is a part of it.
func jsonText(raw []byte) []byte {
	for _, c := range raw {
		if c == '\\' {
			return unescape(make([]byte, 0, len(raw)), raw)
		}
	}
	return raw[1 : len(raw)-1]
}

// unescape appends what a string literal, which has been checked, says.
func unescape(b, raw []byte) []byte {
	for i := 1; i < len(raw)-1; i++ {
		c := raw[i]
		if c != '\\' {
			b = append(b, c)
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r := hex4(raw[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+6 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u' {
					low = hex4(raw[i+3:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, raw[i])
		}
	}
	return b
}

func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		d, _ := hex(c)
		r = r<<4 | d
	}
	return r
}

func jsonNumber(raw []byte) (float64, bool) {
	// An exponent out of range still gives an infinity, as it does in a script.
	n, err := strconv.ParseFloat(string(raw), 64)
	return n, err == nil || n != 0
}
