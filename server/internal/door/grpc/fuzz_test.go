package grpcdoor

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

type silent struct{}

func (silent) HandleCall(_ context.Context, call *message.Call) *message.Reply {
	return &message.Reply{ContentType: call.ContentType}
}

func (silent) HandleStream(context.Context, *message.Call, message.Sender) *message.Reply { return nil }

// FuzzClientMessage feeds a session's stream with messages of all sorts. It must end in
// order, and answer every call that has a number at most once.
func FuzzClientMessage(f *testing.F) {
	seed := func(m *telfordv1.ClientMessage) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Call{Call: &telfordv1.Call{Seq: 1, Method: "x", ContentType: "json", TimeoutUs: 1}}})
	seed(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Call{Call: &telfordv1.Call{Seq: 1 << 53, Stream: true, Method: "x", TimeoutUs: -1}}})
	seed(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Result{Result: &telfordv1.Result{Seq: 1, Status: &telfordv1.Status{Code: "nonsense"}}}})
	seed(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Chunk{Chunk: &telfordv1.Chunk{Seq: 1}}})
	seed(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Cancel{Cancel: &telfordv1.Cancel{Seq: 1}}})
	seed(&telfordv1.ClientMessage{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(telfordv1.ClientMessage)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		var running, writing sync.WaitGroup
		answers := make(map[uint64]int)
		tr := newTransport(transportOptions{
			send: func(p []byte) error {
				out := new(telfordv1.ServerMessage)
				if err := proto.Unmarshal(p, out); err != nil {
					t.Error(err)
				}
				if r := out.GetResult(); r != nil {
					answers[r.GetSeq()]++
				}
				return nil
			},
			handler: silent{}, control: func(*telfordv1.ClientMessage) {}, running: &running,
			clock: clock.Real(), log: slog.New(slog.DiscardHandler),
		})
		writing.Add(1)
		go func() { defer writing.Done(); tr.write() }()
		reply := make(chan error, 1)
		go func() { // something for a Result or a Chunk to hit
			_, err := tr.Call(context.Background(), &message.Call{Seq: 1, Method: "y"})
			reply <- err
		}()
		if e := tr.receive(m); e != nil && e.Code != errs.InvalidArgument {
			t.Errorf("%#v", e)
		}
		running.Wait()
		tr.Close(nil)
		writing.Wait()
		<-reply
		for seq, n := range answers {
			if n > 1 {
				t.Errorf("call %d was answered %d times", seq, n)
			}
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add("application/grpc+json", "x-bin", "\x00\xff", "Bearer x")
	f.Add("application/grpc+proto;charset=x", "grpc-status", "", "")
	f.Fuzz(func(t *testing.T, ct, key, value, auth string) {
		key = strings.ToLower(key)
		md := metadata.MD{"content-type": {ct}, "authorization": {auth}, key: {value}}
		if _, e := contentType(md); e != nil && (e.Code != errs.InvalidArgument || !e.NotStarted) {
			t.Errorf("%#v", e)
		}
		call := new(message.Call)
		if e := headers(call, md); e != nil && !e.NotStarted {
			t.Errorf("%#v", e)
		}
		for _, p := range call.Headers {
			if p.Key == "authorization" || strings.HasPrefix(p.Key, "telford-") || strings.HasPrefix(p.Key, ":") {
				t.Errorf("%q passes as a header of the call", p.Key)
			}
		}
	})
}

func TestQueueWakesAndBounds(t *testing.T) {
	t.Parallel()
	q := newQueue()
	big := make([]byte, queueBytes)
	if !q.put(t.Context(), item{payload: big}, false) {
		t.Fatal("the first was refused")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if q.put(ctx, item{payload: []byte("x")}, false) {
		t.Error("a full queue took more")
	}
	if !q.force(item{payload: []byte("c")}) {
		t.Error("a control message had to wait")
	}
	put := make(chan bool)
	go func() { put <- q.put(context.Background(), item{payload: []byte("later")}, false) }()
	for _, want := range []int{1, queueBytes} {
		if it, ok := q.take(); !ok || len(it.payload) != want {
			t.Errorf("took %d bytes, want %d", len(it.payload), want)
		}
	}
	if !<-put {
		t.Error("who waited for room was refused")
	}
	if it, ok := q.take(); !ok || string(it.payload) != "later" {
		t.Errorf("took %q", it.payload)
	}
	q.put(t.Context(), item{payload: big}, false)
	go func() { put <- q.put(context.Background(), item{}, false) }()
	q.seal()
	if <-put {
		t.Error("a sealed queue took more")
	}
	if q.empty() || q.force(item{}) {
		t.Error("sealing dropped what was queued, or let something in")
	}
	q.drop()
	if !q.empty() {
		t.Error("dropping left something")
	}
}
