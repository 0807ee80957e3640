package link

import (
	"encoding/binary"
	"errors"
	"io"
	"net"

	"telford.dev/telford/internal/errs"
)

// frameType is the second field of a frame.
type frameType byte

const (
	frameAccepted  frameType = 1
	frameRefused   frameType = 2
	frameControl   frameType = 3
	framePing      frameType = 4
	framePong      frameType = 5
	frameGoAway    frameType = 6
	frameGoAwayAck frameType = 7
	frameDefine    frameType = 8
	frameOpen      frameType = 9
	frameData      frameType = 10
	frameHeaders   frameType = 11
	frameReply     frameType = 12
	frameCancel    frameType = 13
	frameWindow    frameType = 14
	frameClose     frameType = 15

	// optionalFrame is the first type that a receiver skips when it does not know it.
	optionalFrame frameType = 128
)

// flagMore: the message goes on in the next DATA (or CONTROL) frame of the stream.
const flagMore = 1

const (
	headerLen = 12
	maxStream = 1<<56 - 1
)

// header is length (3 bytes), type (1), flags (1), stream (7), big-endian.
type header struct {
	length int
	kind   frameType
	flags  byte
	stream uint64
}

func appendHeader(b []byte, kind frameType, flags byte, stream uint64, length int) []byte {
	return append(b,
		byte(length>>16), byte(length>>8), byte(length), byte(kind),
		flags, byte(stream>>48), byte(stream>>40), byte(stream>>32),
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// setLength writes the length of the frame that begins at b[at:] and ends with b.
func setLength(b []byte, at int) {
	n := len(b) - at - headerLen
	b[at], b[at+1], b[at+2] = byte(n>>16), byte(n>>8), byte(n)
}

func parseHeader(b []byte) header {
	_ = b[headerLen-1]
	return header{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   frameType(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint64(b[4:]) & maxStream,
	}
}

func protocolError(format string, args ...any) *errs.Error {
	e := errs.New(errs.Internal, "protocol_error: "+format, args...)
	e.Component = "link"
	return e
}

// frameReader cuts a byte stream into frames. The buffer grows to what one frame or
// one read needs and is reused: a payload is valid until the next call.
type frameReader struct {
	nc   net.Conn
	buf  []byte
	r, w int
}

func newFrameReader(nc net.Conn) *frameReader {
	return &frameReader{nc: nc, buf: make([]byte, 4<<10)}
}

// buffered reports whether a whole frame can be had without reading.
func (f *frameReader) buffered() bool {
	if f.w-f.r < headerLen {
		return false
	}
	return f.w-f.r >= headerLen+parseHeader(f.buf[f.r:]).length
}

func (f *frameReader) next() (header, []byte, error) {
	if err := f.fill(headerLen); err != nil {
		return header{}, nil, err
	}
	h := parseHeader(f.buf[f.r:])
	if h.length > MaxFrame {
		return h, nil, protocolError("a frame of %d bytes is over the limit of %d", h.length, MaxFrame)
	}
	if err := f.fill(headerLen + h.length); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h, nil, err
	}
	p := f.buf[f.r+headerLen : f.r+headerLen+h.length]
	f.r += headerLen + h.length
	return h, p, nil
}

func (f *frameReader) fill(n int) error {
	if f.w-f.r >= n {
		return nil
	}
	if f.r > 0 {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	if len(f.buf) < n {
		grown := make([]byte, max(n, min(4*len(f.buf), MaxFrame+headerLen)))
		copy(grown, f.buf[:f.w])
		f.buf = grown
	}
	for f.w < n {
		m, err := f.nc.Read(f.buf[f.w:])
		f.w += m
		if err != nil && f.w < n {
			if errors.Is(err, io.EOF) && f.w > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	if f.w == len(f.buf) && len(f.buf) < MaxFrame {
		// The read filled the buffer: more is waiting, so the next one may take more.
		grown := make([]byte, min(4*len(f.buf), MaxFrame+headerLen))
		copy(grown, f.buf[:f.w])
		f.buf = grown
	}
	return nil
}
