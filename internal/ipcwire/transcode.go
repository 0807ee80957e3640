package ipcwire

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Blobs says how bytes appear in JSON.
type Blobs uint8

// The ways.
const (
	// BlobsAsBuffers is an object with a list of numbers, as scripts write it.
	BlobsAsBuffers Blobs = iota
	// BlobsAsBase64 is a string, as Go's encoding/json reads and writes it.
	BlobsAsBase64
)

// Transcode appends the one value in raw, of encoding from, in the other encoding. In
// JSON a field without a value is left out, a time is a text, and what is no number is
// null.
func Transcode(b, raw []byte, from Encoding, blobs Blobs) ([]byte, error) {
	start := len(b)
	switch from {
	case JSON:
		s := jsonScanner{b: raw}
		s.blank()
		b, err := s.transcode(b, 0)
		if err != nil {
			return b[:start], err
		}
		if s.blank(); s.at < len(raw) {
			return b[:start], s.fail("the end of the value")
		}
		return b, nil
	case Msgpack:
		s := msgpackScanner{b: raw}
		b, err := s.transcode(b, 0, blobs)
		if err != nil {
			return b[:start], err
		}
		if s.at < len(raw) {
			return b[:start], fmt.Errorf("%d bytes follow the value", len(raw)-s.at)
		}
		return b, nil
	}
	return b, fmt.Errorf("a value of encoding %s cannot be rewritten", from)
}

func (s *jsonScanner) transcode(b []byte, depth int) ([]byte, error) {
	c := s.peek()
	if c == '{' || c == '[' {
		return s.transcodeItems(b, c, depth)
	}
	from := s.at
	kind, err := s.value(depth)
	if err != nil {
		return b, err
	}
	raw := s.b[from:s.at]
	switch kind {
	case String:
		return AppendText(b, Msgpack, strings.ToValidUTF8(string(jsonText(raw)), "\uFFFD")), nil
	case Number:
		n, _ := jsonNumber(raw)
		return appendMsgpackNumber(b, n), nil
	case Bool:
		if c == 't' {
			return append(b, 0xc3), nil
		}
		return append(b, 0xc2), nil
	}
	return append(b, 0xc0), nil
}

// transcodeItems writes the number of the items behind them, into the place it left.
func (s *jsonScanner) transcodeItems(b []byte, open byte, depth int) ([]byte, error) {
	if depth >= maxNesting {
		return b, fmt.Errorf("values lie in each other more than %d deep", maxNesting)
	}
	start, n := len(b), 0
	b = append(b, 0, 0, 0)
	end := open + 2 // of { and of [
	s.at++
	for s.blank(); s.peek() != end; n++ {
		if n > 0 {
			if s.peek() != ',' {
				return b, s.fail("a comma")
			}
			s.at++
			s.blank()
		}
		var err error
		if open == '{' {
			if s.peek() != '"' {
				return b, s.fail("a string")
			}
			if b, err = s.transcode(b, depth+1); err != nil {
				return b, err
			}
			s.blank()
			if s.peek() != ':' {
				return b, s.fail("a colon")
			}
			s.at++
			s.blank()
		}
		if b, err = s.transcode(b, depth+1); err != nil {
			return b, err
		}
		s.blank()
	}
	s.at++
	return closeItems(b, start, open == '{', n), nil
}

// closeItems writes the head of a map, or of an array, whose items follow the three
// bytes at start.
func closeItems(b []byte, start int, object bool, n int) []byte {
	const short = 1 << 10 // what is worth moving for two bytes
	code := byte(0xdc)
	if object {
		code = 0xde
	}
	switch {
	case n >= 1<<16:
		b = append(b, 0, 0)
		copy(b[start+5:], b[start+3:len(b)-2])
		b[start] = code + 1
		binary.BigEndian.PutUint32(b[start+1:], uint32(n))
	case !object && n < 16 && len(b)-start < short:
		b[start] = 0x90 | byte(n)
		b = append(b[:start+1], b[start+3:]...)
	default:
		b[start], b[start+1], b[start+2] = code, byte(n>>8), byte(n)
	}
	return b
}

func (s *msgpackScanner) transcode(b []byte, depth int, blobs Blobs) ([]byte, error) {
	from := s.at
	h, err := s.next()
	if err != nil {
		return b, err
	}
	raw := s.b[from:s.at]
	switch h.kind {
	case Object, Array:
		return s.transcodeItems(b, h, depth, blobs)
	case String:
		return appendJSONText(b, string(h.body)), nil
	case Number:
		return appendNumberText(b, raw), nil
	case Bool:
		return strconv.AppendBool(b, raw[0] == 0xc3), nil
	case Time:
		at, ok := stamp(h.body)
		if !ok {
			return append(b, "null"...), nil
		}
		return append(at.UTC().AppendFormat(append(b, '"'), "2006-01-02T15:04:05.000Z"), '"'), nil
	case Binary:
		return appendBlob(b, h.body, blobs), nil
	}
	return append(b, "null"...), nil
}

func (s *msgpackScanner) transcodeItems(b []byte, h head, depth int, blobs Blobs) ([]byte, error) {
	if depth >= maxNesting {
		return b, fmt.Errorf("values lie in each other more than %d deep", maxNesting)
	}
	object := h.kind == Object
	open, end := byte('['), byte(']')
	if object {
		open, end = '{', '}'
	}
	b = append(b, open)
	written := 0
	for range h.items {
		mark := len(b)
		if written > 0 {
			b = append(b, ',')
		}
		var err error
		if object {
			if b, err = s.transcodeKey(b); err != nil {
				return b, err
			}
			b = append(b, ':')
		}
		from := s.at
		if b, err = s.transcode(b, depth+1, blobs); err != nil {
			return b, err
		}
		if object && absentAt(s.b[from:s.at]) {
			b = b[:mark]
			continue
		}
		written++
	}
	return append(b, end), nil
}

// absentAt reports whether the value that begins raw is the absent one.
func absentAt(raw []byte) bool {
	s := msgpackScanner{b: raw}
	h, err := s.next()
	return err == nil && h.kind == Absent
}

func (s *msgpackScanner) transcodeKey(b []byte) ([]byte, error) {
	from := s.at
	h, err := s.next()
	if err != nil {
		return b, err
	}
	switch h.kind {
	case String:
		return appendJSONText(b, string(h.body)), nil
	case Number:
		return append(appendNumberText(append(b, '"'), s.b[from:s.at]), '"'), nil
	case Bool:
		return append(strconv.AppendBool(append(b, '"'), s.b[from] == 0xc3), '"'), nil
	}
	return b, fmt.Errorf("byte %d of the msgpack is the key of a map and neither text, number nor truth value; JSON has no such keys", from)
}

func appendNumberText(b, raw []byte) []byte {
	switch raw[0] {
	case 0xca, 0xcb:
		n, _ := msgpackNumber(raw)
		return appendJSONFloat(b, n)
	case 0xcf:
		return strconv.AppendUint(b, binary.BigEndian.Uint64(raw[1:]), 10)
	}
	return strconv.AppendInt(b, msgpackInt(raw), 10)
}

func appendBlob(b, blob []byte, blobs Blobs) []byte {
	if blobs == BlobsAsBase64 {
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, blob)
		return append(b, '"')
	}
	b = append(b, `{"type":"Buffer","data":[`...)
	for i, c := range blob {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(c), 10)
	}
	return append(b, "]}"...)
}

// stamp is the moment of a time stamp of 4, 8 or 12 bytes.
func stamp(b []byte) (time.Time, bool) {
	var seconds, nanos int64
	switch len(b) {
	case 4:
		seconds = int64(binary.BigEndian.Uint32(b))
	case 8:
		both := binary.BigEndian.Uint64(b)
		seconds, nanos = int64(both&(1<<34-1)), int64(both>>34)
	case 12:
		nanos, seconds = int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint64(b[4:]))
	default:
		return time.Time{}, false
	}
	const last = 253402300799 // the end of the year 9999
	if nanos >= int64(time.Second) || seconds < -62135596800 || seconds > last {
		return time.Time{}, false
	}
	return time.Unix(seconds, nanos), true
}
