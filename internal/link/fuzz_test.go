package link

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// FuzzDecodeCall feeds call blocks. What decodes must encode to something that decodes
// to the same.
func FuzzDecodeCall(f *testing.F) {
	var names nameWriter
	for _, c := range []message.Call{
		{Method: "m"},
		{
			Service: "s", Method: "a/b", Stream: true, ContentType: message.Proto, Body: []byte("body"), RequestID: "r",
			Headers: []message.Pair{{Key: "k", Value: []byte("v")}}, Trace: message.Trace{TraceID: [16]byte{1}, SpanID: [8]byte{1}, State: "x"},
			ChainRoot: "root", Chain: []string{"a", "b"}, IdempotencyKey: "i", Attempt: 3, Seq: 9, Avoid: []string{"in_9"},
			Caller: message.Caller{Namespace: "n", Service: "s", Instance: "i", KeyID: "k"}, Target: message.Target{Realm: "r", Instance: "i"},
		},
	} {
		b, at := appendCall(nil, &names, 1, &c, time.Second)
		f.Add(append(b[at+headerLen:], c.Body...))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, p []byte) {
		known := nameReader{names: []string{"m", "a/b", "s"}}
		var call message.Call
		now := time.Unix(0, 0)
		if decodeCall(p, &known, &call, now) != nil {
			return
		}
		var w nameWriter
		left := time.Duration(0)
		if !call.Deadline.IsZero() {
			left = call.Deadline.Sub(now)
		}
		b, at := appendCall(nil, &w, 1, &call, left)
		var r nameReader
		for rest := b[:at]; len(rest) > 0; {
			h := parseHeader(rest)
			if err := r.define(rest[headerLen : headerLen+h.length]); err != nil {
				t.Fatal(err)
			}
			rest = rest[headerLen+h.length:]
		}
		var again message.Call
		if err := decodeCall(append(b[at+headerLen:], call.Body...), &r, &again, now); err != nil {
			t.Fatal(err)
		}
		normal := func(c *message.Call) {
			for i := range c.Headers {
				c.Headers[i].Value = append([]byte{}, c.Headers[i].Value...)
			}
			if len(c.Headers) == 0 {
				c.Headers = nil
			}
			if len(c.Chain) == 0 {
				c.Chain = nil
			}
			c.Body = append([]byte{}, c.Body...)
			if !c.Trace.Valid() {
				c.Trace = message.Trace{} // an invalid one does not travel
			}
			if c.Deadline.Equal(now) {
				c.Deadline = time.Time{} // nothing left is not a deadline on the wire
			}
		}
		normal(&call)
		normal(&again)
		if diff := cmp.Diff(call, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzDecodeReply feeds reply blocks.
func FuzzDecodeReply(f *testing.F) {
	var names nameWriter
	e := errs.New(errs.Handler, "no").With("k", "v")
	e.Details = [][]byte{{1}}
	for _, r := range []message.Reply{
		{},
		{Err: e, ContentType: message.JSON, Headers: []message.Pair{{Key: "k", Value: []byte("v")}}, Trailers: []message.Pair{{Key: "t"}}},
	} {
		b, at := appendReply(nil, &names, 1, &r)
		f.Add(b[at+headerLen:])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		known := nameReader{names: []string{"k", "t"}}
		var r message.Reply
		body, err := decodeReply(p, &known, &r)
		if err == nil && len(body) > len(p) {
			t.Fatalf("%d bytes of body out of %d", len(body), len(p))
		}
		if err == nil && r.Err != nil && !r.Err.Code.Known() {
			t.Fatalf("an unknown code %q came through", r.Err.Code)
		}
	})
}

// FuzzConn feeds bytes to an accepting end. It must end or go on, never panic or hang.
func FuzzConn(f *testing.F) {
	var names nameWriter
	open, at := appendCall(nil, &names, 1, &message.Call{Method: "m", Headers: []message.Pair{{Key: "k", Value: []byte("v")}}}, time.Second)
	setLength(open, at)
	f.Add(open)
	f.Add(appendHeader(nil, framePing, 0, 0, 8))
	f.Add(append(appendHeader(nil, frameWindow, 0, 0, 4), 0, 0, 0, 1))
	more := append([]byte(nil), open...)
	more[at+4] = flagMore
	f.Add(append(append(more, appendHeader(nil, frameData, flagMore, 1, 1)...), 'x'))
	f.Add(append(more, appendHeader(nil, frameCancel, 0, 1, 0)...))
	f.Add(appendHeader(nil, frameGoAway, 0, 0, 0))
	f.Add(append(appendHeader(nil, frameControl, flagMore, 0, 1), 'c'))
	f.Add(appendHeader(nil, 200, 0, 0, 0))
	f.Fuzz(func(t *testing.T, p []byte) {
		near, far := net.Pipe()
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			buf := make([]byte, 4096)
			for {
				if _, err := near.Read(buf); err != nil {
					return
				}
			}
		}()
		c, err := Accept(far, Options{Handler: fuzzHandler{}, Control: func([]byte) {}})
		if err != nil {
			t.Fatal(err)
		}
		_ = near.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, _ = near.Write(p)
		near.Close()
		<-c.Done()
		<-drained
	})
}

// fuzzHandler answers every call with its body.
type fuzzHandler struct{}

func (fuzzHandler) HandleCall(_ context.Context, call *message.Call) *message.Reply {
	return &message.Reply{Body: append([]byte(nil), call.Body...), Headers: call.Headers}
}

func (fuzzHandler) HandleStream(_ context.Context, call *message.Call, out message.Sender) *message.Reply {
	_ = out.Send(call.Body)
	return &message.Reply{}
}
