package limit

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/message"
)

// Facts are what the keys of limits are taken from.
type Facts struct {
	// Caller is the service of the caller's credential.
	Caller  string
	Headers []message.Pair
	// Body is the request as it came. Input describes it; it may be nil for JSON and
	// msgpack.
	ContentType message.ContentType
	Body        []byte
	Input       protoreflect.MessageDescriptor
	// Message is the request where it has been decoded already, in place of Body.
	Message proto.Message
	// Func is the key that the handler's own function gives.
	Func func() string
}

// keyKind is where a key is taken from.
type keyKind uint8

const (
	noKey keyKind = iota
	callerKey
	headerKey
	fieldKey
	funcKey
)

// source is the key of a limit, taken apart.
type source struct {
	kind keyKind
	name string
}

func sourceOf(key string) source {
	switch key {
	case "":
		return source{}
	case catalog.KeyCaller:
		return source{kind: callerKey}
	case catalog.KeyFunc:
		return source{kind: funcKey}
	}
	if name, ok := strings.CutPrefix(key, catalog.KeyHeader); ok {
		return source{headerKey, name}
	}
	return source{fieldKey, strings.TrimPrefix(key, catalog.KeyField)}
}

// key returns the value that is counted apart. A call that lacks it has the empty value,
// as all others that lack it.
func (f *Facts) key(s source) value {
	switch s.kind {
	case callerKey:
		return value{s: f.Caller}
	case headerKey:
		for i := range f.Headers {
			if f.Headers[i].Key == s.name {
				return value{b: f.Headers[i].Value}
			}
		}
	case fieldKey:
		return f.field(s.name)
	case funcKey:
		if f.Func != nil {
			return value{s: f.Func()}
		}
	}
	return value{}
}

// field returns the text of a field at the top of the request. Numbers and names of enums
// read alike however they were written; lists and objects have no text.
func (f *Facts) field(name string) value {
	desc := f.Input
	if f.Message != nil {
		desc = f.Message.ProtoReflect().Descriptor()
	}
	var fd protoreflect.FieldDescriptor
	if desc != nil {
		if fd = FieldOf(desc, name); fd == nil {
			return value{}
		}
	}
	switch {
	case f.Message != nil:
		return value{s: protoText(fd, f.Message.ProtoReflect().Get(fd))}
	case f.ContentType == message.JSON:
		return jsonField(f.Body, name, fd)
	case f.ContentType == message.Msgpack:
		return value{s: msgpackField(f.Body, name, fd)}
	case f.ContentType == message.Proto && fd != nil:
		return value{s: protoField(f.Body, fd)}
	}
	return value{}
}
