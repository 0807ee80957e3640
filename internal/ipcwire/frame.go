package ipcwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// HeaderSize is the length in front of each body: four bytes, the highest first.
const HeaderSize = 4

// ErrFrameTooLarge is wrapped by the error for a length over the limit.
var ErrFrameTooLarge = errors.New("frame too large")

// PeekLength returns the length of the body that the frame at the start of b announces,
// and whether b is long enough to say.
func PeekLength(b []byte) (n int, ok bool) {
	if len(b) < HeaderSize {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(b)), true
}

// Begin appends the place for a length; Finish writes it.
func Begin(b []byte) []byte { return append(b, 0, 0, 0, 0) }

// Finish writes the length of what was appended behind Begin, which began at start.
func Finish(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-HeaderSize))
	return b
}

// AppendFrame appends body as a frame.
func AppendFrame(b, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// Split returns the bodies of the whole frames in b, and what is left behind them. It
// refuses a length over limit; zero means MaxFrame.
func Split(b []byte, limit int) (bodies [][]byte, rest []byte, err error) {
	for {
		n, ok := PeekLength(b)
		if !ok {
			return bodies, b, nil
		}
		if err := checkLength(n, limit); err != nil {
			return bodies, b, err
		}
		if len(b) < HeaderSize+n {
			return bodies, b, nil
		}
		bodies = append(bodies, b[HeaderSize:HeaderSize+n:HeaderSize+n])
		b = b[HeaderSize+n:]
	}
}

func checkLength(n, limit int) error {
	if limit <= 0 {
		limit = MaxFrame
	}
	if n > limit {
		return fmt.Errorf("%w: a frame announces %d bytes, the limit is %d", ErrFrameTooLarge, n, limit)
	}
	return nil
}

const (
	firstBuffer = 4 << 10
	keepBuffer  = 64 << 10 // what a connection may hold on to after a large frame
)

// Reader takes frames from a stream. Its buffer grows with the bytes that have come,
// never with a length that is merely announced.
type Reader struct {
	src        io.Reader
	limit      int
	buf        []byte
	start, end int // what has been read and not been taken
	ended      error
}

// NewReader reads frames of bodies up to limit bytes from src; zero means MaxFrame.
func NewReader(src io.Reader, limit int) *Reader { return &Reader{src: src, limit: limit} }

// Next returns the next frame, with its length in front. It is good until the call of
// Next after. At the end of the stream the error is io.EOF, or io.ErrUnexpectedEOF inside
// a frame.
func (r *Reader) Next() ([]byte, error) {
	for {
		frame, err := r.take()
		if frame != nil || err != nil {
			return frame, err
		}
		if r.ended != nil {
			if errors.Is(r.ended, io.EOF) && r.end > r.start {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, r.ended
		}
		r.room()
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		r.ended = err
	}
}

// Buffered reports whether Next would return without reading.
func (r *Reader) Buffered() bool {
	n, ok := PeekLength(r.buf[r.start:r.end])
	return ok && (r.end-r.start >= HeaderSize+n || checkLength(n, r.limit) != nil)
}

func (r *Reader) take() ([]byte, error) {
	n, ok := PeekLength(r.buf[r.start:r.end])
	if !ok {
		return nil, nil
	}
	if err := checkLength(n, r.limit); err != nil {
		return nil, err
	}
	if r.end-r.start < HeaderSize+n {
		return nil, nil
	}
	frame := r.buf[r.start : r.start+HeaderSize+n : r.start+HeaderSize+n]
	r.start += HeaderSize + n
	return frame, nil
}

// room makes space to read into: by moving what is there to the front, or by a buffer
// of twice the size.
func (r *Reader) room() {
	have := r.end - r.start
	if have == 0 {
		r.start, r.end = 0, 0
		if cap(r.buf) > keepBuffer {
			r.buf = nil
		}
	}
	if r.buf == nil {
		r.buf = make([]byte, firstBuffer)
		return
	}
	if r.end < len(r.buf) {
		return
	}
	if r.start > 0 && have <= len(r.buf)/2 {
		copy(r.buf, r.buf[r.start:r.end])
	} else {
		grown := make([]byte, 2*len(r.buf))
		copy(grown, r.buf[r.start:r.end])
		r.buf = grown
	}
	r.start, r.end = 0, have
}
