// Package message owns the words that travel: a call, its answer, a stream of
// answers, and what goes with them. Links, sessions, the router and the SDK speak in
// these types, so that a message crosses Telford without being turned into another.
// It starts no goroutines and does no I/O.
package message

import (
	"context"
	"time"

	"telford.dev/telford/internal/errs"
)

// MaxPayload is the largest body of one message, in bytes.
const MaxPayload = 16 << 20

// MaxHeaders is the most bytes, keys and values together, that the headers of one
// call may take.
const MaxHeaders = 16 << 10

// MaxDepth is the most hops in one chain of calls.
const MaxDepth = 100

// MaxAvoid is the most instances that a call names as failing.
const MaxAvoid = 16

// ContentType says how a body is encoded.
type ContentType uint8

// The content types.
const (
	None ContentType = iota
	Proto
	JSON
	Msgpack
)

// String returns the name used on wires and in declarations.
func (c ContentType) String() string {
	switch c {
	case Proto:
		return "proto"
	case JSON:
		return "json"
	case Msgpack:
		return "msgpack"
	default:
		return ""
	}
}

// ParseContentType is the reverse of String; unknown names are None.
func ParseContentType(s string) ContentType {
	switch s {
	case "proto":
		return Proto
	case "json":
		return JSON
	case "msgpack":
		return Msgpack
	default:
		return None
	}
}

// Pair is one header: ordered, repeatable, binary-safe. Keys are lower case.
type Pair struct {
	Key   string
	Value []byte
}

// Trace is the W3C trace context of a message. The zero value means none.
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte
	Flags   byte
	State   string
}

// Valid reports whether there is a trace context.
func (t *Trace) Valid() bool { return t.TraceID != [16]byte{} && t.SpanID != [8]byte{} }

// Caller is who calls: always from a credential, never from the message, except on a
// session, where the runtime says on whose behalf it calls.
type Caller struct {
	Namespace string
	Service   string
	Instance  string
	KeyID     string
}

// Target narrows the instances that may be picked. Empty fields do not narrow.
type Target struct {
	Realm    string // exact, or a pattern with *
	Version  string
	Instance string
	// Contract is that of the caller's types, "pb:…" or "js:…".
	Contract string
	// PreferContract makes the contract a wish: where nobody has it, the newest version
	// is taken.
	PreferContract bool
}

// Call is one request to run a method.
type Call struct {
	// Seq numbers the commands of a session, from 1; 0 elsewhere.
	Seq uint64
	// Service is the name of the callee. On a direct link it may be empty.
	Service string
	// Method is the full gRPC method without the leading slash, or the plain name.
	Method      string
	Stream      bool
	ContentType ContentType
	// Body is the encoded request. Who receives a Call may read it until the answer is
	// given and must copy what it keeps.
	Body []byte
	// Deadline is on the local clock; zero means none. It travels as remaining time.
	Deadline time.Time
	Headers  []Pair
	// RequestID names the logical call over all its attempts and hops.
	RequestID string
	Trace     Trace
	// ChainRoot and Chain are the calls that led to this one: the id of the first and
	// the names passed since, oldest first.
	ChainRoot      string
	Chain          []string
	IdempotencyKey string
	// BusinessKey is a name for people by which the call is found later.
	BusinessKey string
	// Attempt is 0 for the first try.
	Attempt int
	Caller  Caller
	Target  Target
	// Avoid are the ids of instances that have failed the caller already, at most
	// MaxAvoid: they are picked only when nobody else is left. For the runtime, which
	// does not hand them on.
	Avoid []string
}

// Reply ends a call. On success Err is nil.
type Reply struct {
	Err         *errs.Error
	ContentType ContentType
	// Body is the encoded answer of a unary call; it belongs to the receiver.
	Body     []byte
	Headers  []Pair
	Trailers []Pair
}

// Stream is the receiving end of a streaming call. Its methods are for one goroutine.
type Stream interface {
	// Recv returns the next message, which belongs to the caller; io.EOF after the
	// orderly end; else the failure as *errs.Error.
	Recv() ([]byte, error)
	// Headers waits for the response headers, or for the end of the stream.
	Headers() ([]Pair, error)
	// Trailers is what came with the end. It is empty before Recv has failed.
	Trailers() []Pair
	// ContentType of the messages; known once a message has been received.
	ContentType() ContentType
	// Close ends the stream early, telling the other end. It is safe after the end and
	// more than once.
	Close()
}

// Sender is the sending end of a streaming call, for the handler's goroutine.
type Sender interface {
	// SendHeaders sends the response headers; at most once, before the first Send.
	SendHeaders([]Pair) error
	// Send sends one message, waiting while the receiver is behind. It returns an error
	// once the receiver is gone. The body is not kept.
	Send(body []byte) error
}

// Handler runs inbound calls. Each runs on a goroutine of its own; ctx ends at the
// deadline of the call, when the caller cancels and when the call's connection is lost.
type Handler interface {
	HandleCall(ctx context.Context, call *Call) *Reply
	// HandleStream sends messages to out; the Reply ends the stream.
	HandleStream(ctx context.Context, call *Call, out Sender) *Reply
}

// Link delivers calls to the other end of something: a connection, a session, an
// instance behind any door.
type Link interface {
	// Call runs a unary call. The error, always an *errs.Error, is that of the path
	// (NotStarted tells whether a handler may have run); the failure of the handler is
	// in the Reply.
	Call(ctx context.Context, call *Call) (*Reply, error)
	// Stream runs a streaming call. Failures after the start come from Recv.
	Stream(ctx context.Context, call *Call) (Stream, error)
}

// CheckPayload refuses a body of n bytes that is over MaxPayload, naming both numbers.
func CheckPayload(n int) *errs.Error {
	if n <= MaxPayload {
		return nil
	}
	e := errs.New(errs.ResourceExhausted, "payload of %d bytes is over the limit of %d bytes; send a reference to it instead, or split it", n, MaxPayload).Unstarted()
	e.Retryable = false
	return e
}

// CheckHeaders refuses headers whose keys and values are over MaxHeaders together.
func CheckHeaders(pairs []Pair) *errs.Error {
	n := 0
	for i := range pairs {
		n += len(pairs[i].Key) + len(pairs[i].Value)
	}
	if n <= MaxHeaders {
		return nil
	}
	e := errs.New(errs.ResourceExhausted, "headers of %d bytes are over the limit of %d bytes; move large values into the body", n, MaxHeaders).Unstarted()
	e.Retryable = false
	return e
}
