package transcode

import (
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// turnProto turns between protobuf and one of the others.
func (m *Method) turnProto(from, to message.ContentType, body []byte, request bool) ([]byte, error) {
	if err := m.load(from); err != nil {
		return nil, err
	}
	desc, what := m.inDesc, "request"
	if !request {
		desc, what = m.outDesc, "answer"
	}
	if from == message.Proto {
		json, err := m.set.protoToJSON(desc, body)
		if err != nil {
			return nil, m.misfit(what, desc, err)
		}
		if to == message.Msgpack {
			return JSONToMsgpack(json)
		}
		return json, nil
	}
	if from == message.Msgpack {
		var err error
		if body, err = MsgpackToJSON(body); err != nil {
			return nil, err
		}
	}
	out, err := m.set.jsonToProto(desc, body)
	if err != nil {
		return nil, m.misfit(what, desc, err)
	}
	return out, nil
}

// misfit words the failure of a body against its message type.
func (m *Method) misfit(what string, desc protoreflect.MessageDescriptor, err error) error {
	if e := errs.From(err); e.Code == errs.ResourceExhausted {
		return e
	}
	return errs.New(errs.InvalidArgument, "the %s of %s does not fit %s: %s", what, m.name, desc.FullName(), plain(err))
}

// load finds the message types of both directions, so that a call whose answer could
// not be turned back is refused before it is made.
func (m *Method) load(brought message.ContentType) *errs.Error {
	m.once.Do(func() {
		missing := ""
		switch {
		case len(m.descriptors) == 0:
			missing = "the callee registered no descriptors"
		case m.input == "":
			missing = "the callee registered no input message for this method"
		case m.output == "":
			missing = "the callee registered no output message for this method"
		}
		if missing != "" {
			m.descriptorsE = m.undescribed(missing)
			return
		}
		s, err := m.transcoder.parsed(m.descriptors)
		if err != nil {
			m.descriptorsE = m.undescribed("the descriptors that the callee registered cannot be used: " + plain(err))
			return
		}
		if m.inDesc = s.message(m.input); m.inDesc == nil {
			m.descriptorsE = m.undescribed("the descriptors that the callee registered do not define its input message " + m.input)
			return
		}
		if m.outDesc = s.message(m.output); m.outDesc == nil {
			m.descriptorsE = m.undescribed("the descriptors that the callee registered do not define its output message " + m.output)
			return
		}
		m.set = s
	})
	if m.descriptorsE != nil {
		return m.descriptorsE.With("content_type", brought.String())
	}
	return nil
}

func (m *Method) undescribed(why string) *errs.Error {
	return errs.New(errs.InvalidArgument, "%s takes %s and nothing else can be turned into it: %s; send %s, or register the service with the descriptors of its messages",
		m.name, m.accepted(), why, m.accepted()).With("method", m.name)
}

func (s *set) jsonToProto(desc protoreflect.MessageDescriptor, body []byte) ([]byte, error) {
	msg := dynamicpb.NewMessage(desc)
	if len(body) != 0 {
		if err := (protojson.UnmarshalOptions{Resolver: s.types}).Unmarshal(body, msg); err != nil {
			return nil, err
		}
	}
	out, err := proto.Marshal(msg)
	if err != nil {
		return nil, err
	}
	return out, fits(len(out), "protobuf")
}

func (s *set) protoToJSON(desc protoreflect.MessageDescriptor, body []byte) ([]byte, error) {
	msg := dynamicpb.NewMessage(desc)
	if err := (proto.UnmarshalOptions{Resolver: s.types}).Unmarshal(body, msg); err != nil {
		return nil, err
	}
	// A few bytes of protobuf may stand for a message with many unset fields, each of
	// which is written out: look before, not after.
	if err := fits(s.leastJSON(msg), "JSON"); err != nil {
		return nil, err
	}
	out, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true, Resolver: s.types}.Marshal(msg)
	if err != nil {
		return nil, err
	}
	return out, fits(len(out), "JSON")
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

// plain returns the text of a protobuf error as people want to read it: its own prefix
// gone, and its unstable spaces plain.
func plain(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(s, "proto: ")
}
