package limit

import (
	"encoding/binary"
	"math"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// msgpackField finds a field at the top of a msgpack map without decoding the rest. The
// last of several holds.
func msgpackField(body []byte, name string, fd protoreflect.FieldDescriptor) string {
	text := absent(fd)
	w := walker{b: body}
	n, ok := w.mapHeader()
	if !ok {
		return text
	}
	for range n {
		key, isText, ok := w.scalar()
		if !ok {
			return text
		}
		from := w.at
		if !w.skip() {
			return text
		}
		if isText && names(value{s: key}, name, fd) {
			text = msgpackText(body, from, fd)
		}
	}
	return text
}

const (
	nilCode   = 0xc0
	falseCode = 0xc2
	trueCode  = 0xc3
)

// msgpackText is the text of the value that begins at from.
func msgpackText(body []byte, from int, fd protoreflect.FieldDescriptor) string {
	if body[from] == nilCode {
		return absent(fd)
	}
	w := walker{b: body, at: from}
	text, quoted, ok := w.scalar()
	switch {
	case !ok:
		return ""
	case quoted || body[from] == falseCode || body[from] == trueCode:
		return described(fd, text, false)
	}
	return described(fd, numberText(text), false)
}

// walker goes over msgpack.
type walker struct {
	b  []byte
	at int
}

func (w *walker) next(n int) ([]byte, bool) {
	if n < 0 || n > len(w.b)-w.at {
		return nil, false
	}
	v := w.b[w.at : w.at+n]
	w.at += n
	return v, true
}

// number reads a big-endian number of the given size.
func (w *walker) number(size int) (uint64, bool) {
	v, ok := w.next(size)
	if !ok {
		return 0, false
	}
	var b [8]byte
	copy(b[8-size:], v)
	return binary.BigEndian.Uint64(b[:]), true
}

func (w *walker) mapHeader() (int, bool) {
	c, ok := w.next(1)
	if !ok {
		return 0, false
	}
	switch {
	case c[0]&0xf0 == 0x80:
		return int(c[0] & 0x0f), true
	case c[0] == 0xde, c[0] == 0xdf:
		n, ok := w.number(2 << (c[0] - 0xde))
		return int(n), ok
	}
	return 0, false
}

// scalar takes a plain value as text, and says whether it was a string or bytes.
func (w *walker) scalar() (text string, quoted, ok bool) {
	head, ok := w.next(1)
	if !ok {
		return "", false, false
	}
	c := head[0]
	switch {
	case c < 0x80:
		return strconv.Itoa(int(c)), false, true
	case c >= 0xe0:
		return strconv.Itoa(int(int8(c))), false, true
	case c&0xe0 == 0xa0:
		v, ok := w.next(int(c & 0x1f))
		return string(v), true, ok
	case c == nilCode:
		return "", false, true
	case c == falseCode:
		return "false", false, true
	case c == trueCode:
		return "true", false, true
	case c >= 0xc4 && c <= 0xc6: // bytes
		return w.text(1 << (c - 0xc4))
	case c >= 0xd9 && c <= 0xdb:
		return w.text(1 << (c - 0xd9))
	case c == 0xca:
		n, ok := w.number(4)
		return floatText(float64(math.Float32frombits(uint32(n)))), false, ok
	case c == 0xcb:
		n, ok := w.number(8)
		return floatText(math.Float64frombits(n)), false, ok
	case c >= 0xcc && c <= 0xcf:
		n, ok := w.number(1 << (c - 0xcc))
		return strconv.FormatUint(n, 10), false, ok
	case c >= 0xd0 && c <= 0xd3:
		size := 1 << (c - 0xd0)
		n, ok := w.number(size)
		shift := 64 - 8*size
		return strconv.FormatInt(int64(n<<shift)>>shift, 10), false, ok
	}
	return "", false, false
}

func (w *walker) text(size int) (string, bool, bool) {
	n, ok := w.number(size)
	if !ok {
		return "", true, false
	}
	v, ok := w.next(int(n))
	return string(v), true, ok
}

// skip goes past one value with all that is in it.
func (w *walker) skip() bool {
	for todo := 1; todo > 0; todo-- {
		more, ok := w.skipHead()
		if !ok || more > len(w.b)-w.at {
			return false // each value takes a byte at least
		}
		todo += more
	}
	return true
}

// skipHead goes past a plain value, or past the head of a container of so many values.
func (w *walker) skipHead() (more int, ok bool) {
	if w.at >= len(w.b) {
		return 0, false
	}
	c := w.b[w.at]
	switch {
	case c&0xf0 == 0x80:
		w.at++
		return 2 * int(c&0x0f), true
	case c&0xf0 == 0x90:
		w.at++
		return int(c & 0x0f), true
	case c >= 0xdc && c <= 0xdf:
		w.at++
		n, ok := w.number(2 << (c & 1))
		if n > math.MaxInt32 {
			return 0, false
		}
		if c >= 0xde {
			n *= 2
		}
		return int(n), ok
	case c >= 0xc7 && c <= 0xc9: // an extension: length, type, bytes
		w.at++
		n, ok := w.number(1 << (c - 0xc7))
		if ok {
			_, ok = w.next(int(n) + 1)
		}
		return 0, ok
	case c >= 0xd4 && c <= 0xd8: // one of fixed length
		_, ok := w.next(2 + 1<<(c-0xd4))
		return 0, ok
	}
	_, _, ok = w.scalar()
	return 0, ok
}
