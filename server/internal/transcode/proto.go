package transcode

import (
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"telford.dev/telford/internal/codec"
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

// Input returns the description of the request, nil where the callee gave none that can be
// used.
func (m *Method) Input() protoreflect.MessageDescriptor {
	if m.input == "" || m.load(message.None) != nil {
		return nil
	}
	return m.inDesc
}

func (m *Method) undescribed(why string) *errs.Error {
	return errs.New(errs.InvalidArgument, "%s takes %s and nothing else can be turned into it: %s; send %s, or register the service with the descriptors of its messages",
		m.name, m.accepted(), why, m.accepted()).With("method", m.name)
}

func (s *set) jsonToProto(desc protoreflect.MessageDescriptor, body []byte) ([]byte, error) {
	if err := bearable(body, countJSON); err != nil {
		return nil, err
	}
	msg := dynamicpb.NewMessage(desc)
	if len(body) != 0 {
		if err := (protojson.UnmarshalOptions{Resolver: s.types}).Unmarshal(body, msg); err != nil {
			return nil, err
		}
	}
	// The same request gives the same bytes, so that they can be compared.
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		return nil, err
	}
	return out, fits(len(out), "protobuf")
}

func (s *set) protoToJSON(desc protoreflect.MessageDescriptor, body []byte) ([]byte, error) {
	if err := bearable(body, func(b []byte) int { return countProto(desc, b, 0) }); err != nil {
		return nil, err
	}
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
	out = codec.Compact(out)
	return out, fits(len(out), "JSON")
}

// plain returns the text of a protobuf error as people want to read it: its own prefix
// gone, and its unstable spaces plain.
func plain(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(s, "proto: ")
}
