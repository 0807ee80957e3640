// Package transcode owns the turning of bodies from one content type into another, for
// ends that do not speak the same: JSON and protobuf by the descriptors that the callee
// registered, JSON and msgpack without. It never guesses a type, never drops a field it
// does not know and never touches bytes that both ends understand. It starts no
// goroutines.
//
// JSON is that of protobuf with the proto's field names and unpopulated fields, and
// without white space: 64-bit integers are strings, bytes are base64. Between JSON and msgpack integers keep every
// digit up to 64 bits either way, signed or unsigned, and larger ones are refused; JSON
// numbers with a point or an exponent are 64-bit floats, and floats have a point; msgpack
// binary becomes a base64 string (and a JSON string never becomes binary), a timestamp an
// RFC 3339 string in UTC, an integer key its decimal digits; other extension types, other
// keys, and numbers that JSON cannot write are refused. Between protobuf and msgpack the
// rules of both apply in turn. An empty body stays empty where JSON and msgpack are
// written from each other, and stands for the empty message where protobuf is.
package transcode

import (
	"strings"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// Options bound what a Transcoder keeps.
type Options struct {
	// MaxSets is how many parsed descriptor sets are kept; 0 means 256. The least
	// recently used goes first.
	MaxSets int
	// MaxSetBytes is the largest descriptor set that is parsed; 0 means 4 MiB.
	MaxSetBytes int
}

// Transcoder keeps the parsed descriptor sets that its Methods share. It is safe for
// concurrent use.
type Transcoder struct {
	maxSetBytes int
	sets        cache
}

// New returns a Transcoder that has parsed nothing yet.
func New(o Options) *Transcoder {
	if o.MaxSets <= 0 {
		o.MaxSets = 256
	}
	if o.MaxSetBytes <= 0 {
		o.MaxSetBytes = 4 << 20
	}
	return &Transcoder{maxSetBytes: o.MaxSetBytes, sets: cache{max: o.MaxSets}}
}

// Method turns the bodies of one method of one instance. It is safe for concurrent use
// and costs nothing until a body needs turning.
type Method struct {
	transcoder *Transcoder
	name       string // "service/method"
	accepts    [4]bool
	anything   bool // nothing is declared: the handler judges for itself
	from       [4]message.ContentType

	input, output string
	descriptors   []byte

	once         sync.Once
	set          *set
	inDesc       protoreflect.MessageDescriptor
	outDesc      protoreflect.MessageDescriptor
	descriptorsE *errs.Error
}

// Method returns the turning of bodies for a method, as an instance declared it.
func (t *Transcoder) Method(d *catalog.Declaration, m *catalog.Method) *Method {
	x := &Method{
		transcoder: t, name: d.Service + "/" + m.Name,
		input: m.InputMessage, output: m.OutputMessage, descriptors: d.Descriptors,
	}
	known := false
	for _, s := range m.ContentTypes {
		if c := message.ParseContentType(s); c != message.None {
			x.accepts[c], known = true, true
		}
	}
	if !known {
		if m.InputMessage != "" {
			x.accepts[message.Proto] = true
		} else {
			x.anything = true
		}
	}
	for c := range x.from {
		x.from[c] = x.choose(message.ContentType(c))
	}
	return x
}

// choose returns the content type that a body of type c is turned into: c itself where
// the handler accepts it, else the accepted one that loses least.
func (m *Method) choose(c message.ContentType) message.ContentType {
	if m.anything || m.accepts[c] {
		return c
	}
	order := [2]message.ContentType{}
	switch c {
	case message.JSON:
		order = [2]message.ContentType{message.Proto, message.Msgpack}
		if !m.described() {
			order = [2]message.ContentType{message.Msgpack, message.Proto}
		}
	case message.Msgpack:
		order = [2]message.ContentType{message.JSON, message.Proto}
	case message.Proto:
		order = [2]message.ContentType{message.JSON, message.Msgpack}
	case message.None:
		return c
	}
	for _, o := range order {
		if m.accepts[o] {
			return o
		}
	}
	return c
}

func (m *Method) described() bool { return len(m.descriptors) != 0 && m.input != "" && m.output != "" }

// Accepts reports whether the handler reads bodies of type c as they are.
func (m *Method) Accepts(c message.ContentType) bool {
	return m.anything || int(c) < len(m.accepts) && m.accepts[c]
}

// Request turns the body of a request into a content type that the handler accepts, and
// returns that type. A body that it accepts comes back as it is, the very bytes.
// Failures are invalid_argument, naming what does not fit or is missing, or
// resource_exhausted when the result is larger than message.MaxPayload.
func (m *Method) Request(from message.ContentType, body []byte) (message.ContentType, []byte, error) {
	if m.Accepts(from) || from == message.None && len(body) == 0 {
		return from, body, nil
	}
	if from == message.None || int(from) >= len(m.from) {
		return from, nil, errs.New(errs.InvalidArgument,
			"the request for %s has a body of %d bytes and no content type: say one of %s", m.name, len(body), m.accepted())
	}
	to := m.from[from]
	out, err := m.turn(from, to, body, true)
	return to, out, err
}

// Reply turns an answer of type from, or one message of a stream, into the type that the
// caller reads. Bytes of the wanted type come back as they are. Failures are internal:
// the handler has run, and what it said cannot be told to this caller.
func (m *Method) Reply(from, want message.ContentType, body []byte) ([]byte, error) {
	if from == want || want == message.None || from == message.None && len(body) == 0 {
		return body, nil
	}
	if from == message.None {
		return nil, errs.New(errs.Internal, "the answer of %s has %d bytes and no content type", m.name, len(body))
	}
	out, err := m.turn(from, want, body, false)
	if err != nil {
		e := errs.From(err)
		if e.Code == errs.InvalidArgument {
			e = errs.New(errs.Internal, "the answer of %s cannot be given as %s: %s", m.name, want, e.Message)
		}
		return nil, e
	}
	return out, nil
}

func (m *Method) turn(from, to message.ContentType, body []byte, request bool) ([]byte, error) {
	var out []byte
	var err error
	switch {
	case from == message.JSON && to == message.Msgpack:
		out, err = JSONToMsgpack(body)
	case from == message.Msgpack && to == message.JSON:
		out, err = MsgpackToJSON(body)
	case from == message.Proto || to == message.Proto:
		return m.turnProto(from, to, body, request)
	default:
		return nil, errs.New(errs.InvalidArgument, "%s takes %s and the call brings %s: no way is known from one to the other",
			m.name, m.accepted(), from)
	}
	return out, err
}

// accepted lists the content types that the handler takes, for messages.
func (m *Method) accepted() string {
	if m.anything {
		return "json, msgpack, proto"
	}
	var names []string
	for _, c := range []message.ContentType{message.JSON, message.Msgpack, message.Proto} {
		if m.accepts[c] {
			names = append(names, c.String())
		}
	}
	return strings.Join(names, ", ")
}
