package transcode

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// maxMessages is how many protobuf messages one body may hold, in one another and beside
// each other. Decoded, each takes a hundred bytes or more, however small it was.
const maxMessages = 1 << 18

// bearable refuses a body that would take far more memory than its bytes.
func bearable(body []byte, count func([]byte) int) error {
	if len(body) <= maxMessages {
		return nil // each takes more than one byte
	}
	if n := count(body); n > maxMessages {
		e := errs.New(errs.ResourceExhausted, "the body holds more than %d messages: send less, or send it in parts", maxMessages)
		e.Retryable = false
		return e
	}
	return nil
}

// countJSON counts the objects of a JSON text.
func countJSON(body []byte) int {
	n := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{':
			n++
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		}
	}
	return n
}

// countProto counts the messages in an encoded one, as far as it decodes, and not further
// than to maxMessages+1.
func countProto(desc protoreflect.MessageDescriptor, body []byte, depth int) int {
	n := 1
	for len(body) > 0 && n <= maxMessages && depth < protowire.DefaultRecursionLimit {
		number, kind, size := protowire.ConsumeTag(body)
		if size < 0 {
			return n
		}
		body = body[size:]
		size = protowire.ConsumeFieldValue(number, kind, body)
		if size < 0 {
			return n
		}
		value := body[:size]
		body = body[size:]
		f := desc.Fields().ByNumber(number)
		if f == nil || f.Message() == nil {
			continue
		}
		switch kind {
		case protowire.BytesType:
			value, _ = protowire.ConsumeBytes(value)
		case protowire.StartGroupType:
			value, _ = protowire.ConsumeGroup(number, value)
		default:
			continue
		}
		n += countProto(f.Message(), value, depth+1)
	}
	return n
}

// leastJSON returns a lower bound of the size of msg as JSON. It stops counting once
// that is over the largest payload.
func (s *set) leastJSON(msg protoreflect.Message) int {
	n := s.skeleton(msg.Descriptor())
	msg.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					n += s.leastJSON(v.Message())
					return n <= message.MaxPayload
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && n <= message.MaxPayload; i++ {
				n += s.leastJSON(v.List().Get(i).Message())
			}
		default:
			n += s.leastJSON(v.Message())
		}
		return n <= message.MaxPayload
	})
	return n
}

// skeleton returns the least that a message of a type takes: its field names. Messages
// with a JSON form of their own count as nothing.
func (s *set) skeleton(desc protoreflect.MessageDescriptor) int {
	if strings.HasPrefix(string(desc.FullName()), "google.protobuf.") {
		return 0
	}
	if n, ok := s.skeletons.Load(desc); ok {
		return n.(int)
	}
	n := len("{}")
	fields := desc.Fields()
	for i := range fields.Len() {
		// Members of a oneof, and proto3 optionals, are left out when unset.
		if f := fields.Get(i); f.ContainingOneof() == nil {
			n += len(`"":0`) + len(f.Name())
		}
	}
	s.skeletons.Store(desc, n)
	return n
}

// fits returns resource_exhausted for a body over the limit.
func fits(n int, as string) error {
	if n <= message.MaxPayload {
		return nil
	}
	e := errs.New(errs.ResourceExhausted, "the body takes %d bytes as %s or more and a payload holds at most %d: send less, or send it in parts",
		n, as, message.MaxPayload)
	e.Retryable = false
	return e
}
