package ipcwire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// msgpackScanner goes over a msgpack value and checks all of it.
type msgpackScanner struct {
	b  []byte
	at int
}

// The extensions that every receiver knows: the absent value and the time stamp.
const (
	extAbsent = 0
	extTime   = -1
)

// head is how one msgpack value begins.
type head struct {
	kind  Kind
	items int    // of an Array or Object
	body  []byte // of a String, Binary or extension
	ext   int8
}

func (s *msgpackScanner) short(n int) error {
	return fmt.Errorf("the msgpack ends after %d bytes, %d more were expected at byte %d", len(s.b), n, s.at)
}

func (s *msgpackScanner) take(n int) ([]byte, error) {
	if n < 0 || n > len(s.b)-s.at {
		return nil, s.short(n)
	}
	v := s.b[s.at : s.at+n : s.at+n]
	s.at += n
	return v, nil
}

// size reads a big-endian number of so many bytes.
func (s *msgpackScanner) size(bytes int) (int, error) {
	v, err := s.take(bytes)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range v {
		n = n<<8 | int(c)
	}
	return n, nil
}

// next goes over a plain value, or over the head of a container.
func (s *msgpackScanner) next() (head, error) {
	first, err := s.take(1)
	if err != nil {
		return head{}, err
	}
	c := first[0]
	switch {
	case c < 0x80 || c >= 0xe0:
		return head{kind: Number}, nil
	case c < 0x90:
		return s.container(Object, int(c&0x0f), 0)
	case c < 0xa0:
		return s.container(Array, int(c&0x0f), 0)
	case c < 0xc0:
		return s.bytes(String, int(c&0x1f), nil)
	}
	switch c {
	case 0xc0:
		return head{kind: Null}, nil
	case 0xc2, 0xc3:
		return head{kind: Bool}, nil
	case 0xc4, 0xc5, 0xc6:
		n, err := s.size(1 << (c - 0xc4))
		return s.bytes(Binary, n, err)
	case 0xc7, 0xc8, 0xc9:
		n, err := s.size(1 << (c - 0xc7))
		return s.extension(n, err)
	case 0xca, 0xce, 0xd2:
		_, err := s.take(4)
		return head{kind: Number}, err
	case 0xcb, 0xcf, 0xd3:
		_, err := s.take(8)
		return head{kind: Number}, err
	case 0xcc, 0xd0:
		_, err := s.take(1)
		return head{kind: Number}, err
	case 0xcd, 0xd1:
		_, err := s.take(2)
		return head{kind: Number}, err
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return s.extension(1<<(c-0xd4), nil)
	case 0xd9, 0xda, 0xdb:
		n, err := s.size(1 << (c - 0xd9))
		return s.bytes(String, n, err)
	case 0xdc, 0xdd:
		return s.container(Array, 0, 2<<(c-0xdc))
	case 0xde, 0xdf:
		return s.container(Object, 0, 2<<(c-0xde))
	}
	return head{}, fmt.Errorf("byte %d of the msgpack is 0x%02x, which begins no value", s.at-1, c)
}

func (s *msgpackScanner) bytes(kind Kind, n int, err error) (head, error) {
	if err != nil {
		return head{}, err
	}
	b, err := s.take(n)
	return head{kind: kind, body: b}, err
}

func (s *msgpackScanner) extension(n int, err error) (head, error) {
	if err != nil {
		return head{}, err
	}
	kind, err := s.take(1)
	if err != nil {
		return head{}, err
	}
	h, err := s.bytes(Time, n, nil)
	if err != nil {
		return head{}, err
	}
	switch h.ext = int8(kind[0]); h.ext {
	case extAbsent:
		h.kind = Absent
	case extTime:
	default:
		return head{}, fmt.Errorf("extension %d of msgpack is not known to every receiver; the absent value (0) and the time stamp (-1) are", h.ext)
	}
	return h, nil
}

func (s *msgpackScanner) container(kind Kind, items, sizeBytes int) (head, error) {
	if sizeBytes > 0 {
		n, err := s.size(sizeBytes)
		if err != nil {
			return head{}, err
		}
		items = n
	}
	least := items // each item takes a byte at least
	if kind == Object {
		least *= 2
	}
	if least > len(s.b)-s.at {
		return head{}, s.short(least)
	}
	return head{kind: kind, items: items}, nil
}

// value goes over one value.
func (s *msgpackScanner) value(depth int) (head, error) {
	h, err := s.next()
	if err != nil {
		return h, err
	}
	inner := h.items
	switch h.kind {
	case Object:
		inner *= 2
	case Array:
	default:
		return h, nil
	}
	if depth >= maxNesting {
		return h, fmt.Errorf("values lie in each other more than %d deep", maxNesting)
	}
	for range inner {
		if _, err := s.value(depth + 1); err != nil {
			return h, err
		}
	}
	return h, nil
}

// object goes over a map and shows the fields that have names to f.
func (s *msgpackScanner) object(f fields) error {
	h, err := s.next()
	if err != nil {
		return err
	}
	for range h.items {
		key, err := s.value(1)
		if err != nil {
			return err
		}
		from := s.at
		v, err := s.value(1)
		if err != nil {
			return err
		}
		if key.kind == String {
			value := Value{Kind: v.kind, enc: Msgpack, Raw: s.b[from:s.at:s.at]}
			if v.kind == String {
				value.Text = v.body
			}
			f.field(key.body, value)
		}
	}
	return nil
}

// msgpackNumber is the number that raw, which has been checked, holds.
func msgpackNumber(raw []byte) (float64, bool) {
	switch raw[0] {
	case 0xca:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(raw[1:]))), true
	case 0xcb:
		return math.Float64frombits(binary.BigEndian.Uint64(raw[1:])), true
	case 0xcf:
		return float64(binary.BigEndian.Uint64(raw[1:])), true
	default:
		return float64(msgpackInt(raw)), true
	}
}

// msgpackInt is the integer that raw holds, of every form but 0xcf.
func msgpackInt(raw []byte) int64 {
	switch c := raw[0]; c {
	case 0xcc:
		return int64(raw[1])
	case 0xcd:
		return int64(binary.BigEndian.Uint16(raw[1:]))
	case 0xce:
		return int64(binary.BigEndian.Uint32(raw[1:]))
	case 0xd0:
		return int64(int8(raw[1]))
	case 0xd1:
		return int64(int16(binary.BigEndian.Uint16(raw[1:])))
	case 0xd2:
		return int64(int32(binary.BigEndian.Uint32(raw[1:])))
	case 0xd3:
		return int64(binary.BigEndian.Uint64(raw[1:]))
	default:
		return int64(int8(c))
	}
}
