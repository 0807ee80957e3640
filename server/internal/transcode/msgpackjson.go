package transcode

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"telford.dev/telford/internal/errs"
)

// maxNesting is how deep containers may nest, as in encoding/json.
const maxNesting = 10_000

// MsgpackToJSON writes one msgpack value as JSON. Order and repeats of keys are kept.
// Failures are invalid_argument.
func MsgpackToJSON(body []byte) ([]byte, error) {
	if len(body) == 0 {
		return nil, nil
	}
	in := bytes.NewReader(body)
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	dec.Reset(in)
	w := msgpackWalker{dec: dec, body: body, in: in, out: make([]byte, 0, len(body)+len(body)/2)}
	if err := w.value(0); err != nil {
		var e *errs.Error
		if errors.As(err, &e) {
			return nil, e
		}
		at := len(body) - in.Len()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errs.New(errs.InvalidArgument, "the body is not msgpack: it ends in the middle of a value, after %d bytes", len(body))
		}
		return nil, errs.New(errs.InvalidArgument, "the body is not msgpack: at byte %d: %w", at, err)
	}
	if in.Len() != 0 {
		return nil, errs.New(errs.InvalidArgument, "the body is not msgpack: %d bytes follow the value", in.Len())
	}
	return w.out, fits(len(w.out), "JSON")
}

// msgpackWalker reads body through in; dec reads from there without looking ahead.
type msgpackWalker struct {
	dec  *msgpack.Decoder
	body []byte
	in   *bytes.Reader
	out  []byte
}

// bytes returns the next string or binary, which is a part of the body. The decoder
// itself would allocate what a length claims before it looks whether so much is there.
func (w *msgpackWalker) bytes() ([]byte, error) {
	n, err := w.dec.DecodeBytesLen()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > w.in.Len() {
		return nil, io.ErrUnexpectedEOF
	}
	at := len(w.body) - w.in.Len()
	if _, err := w.in.Seek(int64(n), io.SeekCurrent); err != nil {
		return nil, err
	}
	return w.body[at : at+n], nil
}

func (w *msgpackWalker) value(depth int) error {
	if depth > maxNesting {
		return errs.New(errs.InvalidArgument, "the body nests deeper than %d", maxNesting)
	}
	if err := fits(len(w.out), "JSON"); err != nil {
		return err
	}
	c, err := w.dec.PeekCode()
	if err != nil {
		return err
	}
	switch {
	case c == msgpcode.Nil:
		w.out = append(w.out, "null"...)
		return w.dec.DecodeNil()
	case c == msgpcode.True, c == msgpcode.False:
		b, err := w.dec.DecodeBool()
		w.out = strconv.AppendBool(w.out, b)
		return err
	case c == msgpcode.Float:
		f, err := w.dec.DecodeFloat32()
		if err != nil {
			return err
		}
		return w.float(float64(f), 32)
	case c == msgpcode.Double:
		f, err := w.dec.DecodeFloat64()
		if err != nil {
			return err
		}
		return w.float(f, 64)
	case isInteger(c):
		return w.integer(c)
	case msgpcode.IsString(c):
		s, err := w.text()
		if err != nil {
			return err
		}
		w.out = appendQuoted(w.out, s)
		return nil
	case msgpcode.IsBin(c):
		b, err := w.bytes()
		if err != nil {
			return err
		}
		w.out = append(w.out, '"')
		w.out = base64.StdEncoding.AppendEncode(w.out, b)
		w.out = append(w.out, '"')
		return nil
	case isArray(c):
		return w.array(depth)
	case isMap(c):
		return w.object(depth)
	case msgpcode.IsExt(c):
		return w.extension()
	default:
		return errs.New(errs.InvalidArgument, "the body is not msgpack: byte %#02x begins no value", c)
	}
}

func isInteger(c byte) bool {
	return msgpcode.IsFixedNum(c) || c >= msgpcode.Uint8 && c <= msgpcode.Int64
}

func isArray(c byte) bool {
	return msgpcode.IsFixedArray(c) || c == msgpcode.Array16 || c == msgpcode.Array32
}

func isMap(c byte) bool {
	return msgpcode.IsFixedMap(c) || c == msgpcode.Map16 || c == msgpcode.Map32
}

func (w *msgpackWalker) integer(c byte) error {
	if c == msgpcode.Uint64 {
		u, err := w.dec.DecodeUint64()
		w.out = strconv.AppendUint(w.out, u, 10)
		return err
	}
	i, err := w.dec.DecodeInt64()
	w.out = strconv.AppendInt(w.out, i, 10)
	return err
}

func (w *msgpackWalker) float(f float64, bits int) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return errs.New(errs.InvalidArgument, "the body holds the number %v, which JSON cannot write", f)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	from := len(w.out)
	w.out = strconv.AppendFloat(w.out, f, format, -1, bits)
	if !bytes.ContainsAny(w.out[from:], ".e") {
		w.out = append(w.out, ".0"...) // else it would come back as an integer
	}
	return nil
}

func (w *msgpackWalker) text() (string, error) {
	b, err := w.bytes()
	if err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		return "", errs.New(errs.InvalidArgument, "the body holds the string %q, which is not UTF-8: send it as binary", clip(string(b)))
	}
	return string(b), nil
}

func (w *msgpackWalker) array(depth int) error {
	n, err := w.dec.DecodeArrayLen()
	if err != nil {
		return err
	}
	w.out = append(w.out, '[')
	for i := range n {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.value(depth + 1); err != nil {
			return err
		}
	}
	w.out = append(w.out, ']')
	return nil
}

func (w *msgpackWalker) object(depth int) error {
	n, err := w.dec.DecodeMapLen()
	if err != nil {
		return err
	}
	w.out = append(w.out, '{')
	for i := range n {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.key(); err != nil {
			return err
		}
		w.out = append(w.out, ':')
		if err := w.value(depth + 1); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

func (w *msgpackWalker) key() error {
	c, err := w.dec.PeekCode()
	switch {
	case err != nil:
		return err
	case msgpcode.IsString(c):
		s, err := w.text()
		if err != nil {
			return err
		}
		w.out = appendQuoted(w.out, s)
		return nil
	case isInteger(c):
		w.out = append(w.out, '"')
		err := w.integer(c)
		w.out = append(w.out, '"')
		return err
	default:
		return errs.New(errs.InvalidArgument, "the body holds a map whose key begins with byte %#02x: JSON has only strings, and integers as their digits, for keys", c)
	}
}

// timestamp is the one extension type that msgpack itself defines.
const timestamp = -1

func (w *msgpackWalker) extension() error {
	id, n, err := w.dec.DecodeExtHeader()
	if err != nil {
		return err
	}
	if id != timestamp {
		return errs.New(errs.InvalidArgument, "the body holds an extension of type %d, which JSON cannot write: send it as a map, a string or binary", id)
	}
	if n > 12 {
		return errs.New(errs.InvalidArgument, "the body holds a timestamp of %d bytes: it has 4, 8 or 12", n)
	}
	var buf [12]byte
	b := buf[:max(n, 0)]
	if err := w.dec.ReadFull(b); err != nil {
		return err
	}
	var sec, nsec int64
	switch n {
	case 4:
		sec = int64(binary.BigEndian.Uint32(b))
	case 8:
		v := binary.BigEndian.Uint64(b)
		nsec, sec = int64(v>>34), int64(v&(1<<34-1))
	case 12:
		nsec, sec = int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint64(b[4:]))
	default:
		return errs.New(errs.InvalidArgument, "the body holds a timestamp of %d bytes: it has 4, 8 or 12", n)
	}
	// The first and the last second that RFC 3339 can write.
	const first, last = -62_167_219_200, 253_402_300_799
	if nsec > 999_999_999 || sec < first || sec > last {
		return errs.New(errs.InvalidArgument, "the body holds a timestamp of %d s and %d ns since 1970, which is none of the years 0 to 9999", sec, nsec)
	}
	w.out = append(w.out, '"')
	w.out = time.Unix(sec, nsec).UTC().AppendFormat(w.out, time.RFC3339Nano)
	w.out = append(w.out, '"')
	return nil
}

// appendQuoted appends valid UTF-8 as a JSON string.
func appendQuoted(out []byte, s string) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		out = append(out, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	out = append(out, s[from:]...)
	return append(out, '"')
}
