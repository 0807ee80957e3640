// Package codec owns how a Go value becomes the body of a message and back: protobuf
// messages as protobuf or JSON, every other value as JSON. It keeps the buffers that
// requests are encoded into. It starts no goroutines.
package codec

import (
	"encoding/json"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// Natural is the content type that v travels in unless somebody asks for another.
func Natural(v any) message.ContentType {
	if _, ok := v.(proto.Message); ok {
		return message.Proto
	}
	return message.JSON
}

// Append appends the encoding of v to b. A body over the payload limit is refused,
// for protobuf before it is encoded.
func Append(b []byte, v any, ct message.ContentType) ([]byte, error) {
	return appendTo(b, v, ct, false)
}

// AppendStable is Append in which equal values become equal bytes, in this build of the
// program.
func AppendStable(b []byte, v any, ct message.ContentType) ([]byte, error) {
	return appendTo(b, v, ct, true)
}

func appendTo(b []byte, v any, ct message.ContentType, stable bool) ([]byte, error) {
	start := len(b)
	switch m, isProto := v.(proto.Message); {
	case isProto && ct == message.Proto:
		if err := message.CheckPayload(proto.Size(m)); err != nil {
			return b, err
		}
		out, err := proto.MarshalOptions{UseCachedSize: true, Deterministic: stable}.MarshalAppend(b, m)
		if err != nil {
			return b, errs.New(errs.InvalidArgument, "encode %T: %w", v, err).Unstarted()
		}
		return out, nil
	case isProto && ct == message.JSON:
		out, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.MarshalAppend(b, m)
		if err != nil {
			return b, errs.New(errs.InvalidArgument, "encode %T as JSON: %w", v, err).Unstarted()
		}
		return check(b, out[:start+len(Compact(out[start:]))], start)
	case ct == message.JSON:
		out, err := json.Marshal(v)
		if err != nil {
			return b, errs.New(errs.InvalidArgument, "encode %T as JSON: %w", v, err).Unstarted()
		}
		return check(b, append(b, out...), start)
	default:
		return b, errs.New(errs.InvalidArgument, "%T cannot be encoded as %s; only protobuf messages can", v, name(ct)).Unstarted()
	}
}

func check(b, out []byte, start int) ([]byte, error) {
	if err := message.CheckPayload(len(out) - start); err != nil {
		return b, err
	}
	return out, nil
}

// Decode fills v from body. An empty JSON body leaves v as it is.
func Decode(body []byte, v any, ct message.ContentType) error {
	switch m, isProto := v.(proto.Message); {
	case isProto && ct == message.Proto:
		if err := proto.Unmarshal(body, m); err != nil {
			return errs.New(errs.InvalidArgument, "the body is no %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
		return nil
	case isProto && ct == message.JSON:
		if len(body) == 0 {
			return nil
		}
		if err := protojson.Unmarshal(body, m); err != nil {
			return errs.New(errs.InvalidArgument, "the JSON body is no %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
		return nil
	case ct == message.JSON:
		if len(body) == 0 {
			return nil
		}
		if err := json.Unmarshal(body, v); err != nil {
			return errs.New(errs.InvalidArgument, "the JSON body does not fit %T: %w", v, err)
		}
		return nil
	default:
		return errs.New(errs.InvalidArgument, "a body of content type %s cannot be decoded into %T, which takes %s", name(ct), v, Natural(v))
	}
}

func name(ct message.ContentType) string {
	if s := ct.String(); s != "" {
		return s
	}
	return "(none)"
}

// Buffer is a request body that may be used again.
type Buffer struct{ B []byte }

// keep is the largest buffer that is kept for use again.
const keep = 64 << 10

var buffers = sync.Pool{New: func() any { return &Buffer{B: make([]byte, 0, 512)} }}

// Get returns an empty buffer.
func Get() *Buffer { return buffers.Get().(*Buffer) }

// Put takes b back. Nothing may read it any more.
func (b *Buffer) Put() {
	if cap(b.B) <= keep {
		b.B = b.B[:0]
		buffers.Put(b)
	}
}
