package grpcmeta

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"

	"telford.dev/telford/internal/message"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	pairs, err := Append(nil, metadata.MD{"B": {"2", "3"}, "a": {"1"}, "raw-bin": {"\x00"}, "grpc-timeout": {"1S"}, "telford-service": {"x"}, ":path": {"/"}})
	want := []message.Pair{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}, {Key: "b", Value: []byte("3")}, {Key: "raw-bin", Value: []byte{0}}}
	if err != nil || cmp.Diff(want, pairs) != "" {
		t.Errorf("%v, %s", err, cmp.Diff(want, pairs))
	}
	back := metadata.MD{"a": {"1"}, "b": {"2", "3"}, "raw-bin": {"\x00"}}
	if d := cmp.Diff(back, MD(pairs)); d != "" {
		t.Error(d)
	}
	for _, bad := range []metadata.MD{{"": {"x"}}, {"a b": {"x"}}, {"ä": {"x"}}, {"a": {"\n"}}, {"a": {"ü"}}} {
		if _, err := Append(nil, bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestCallFacts(t *testing.T) {
	t.Parallel()
	call := &message.Call{
		RequestID: "r", ChainRoot: "root", Chain: []string{"a/b", "c/d"}, IdempotencyKey: "k", BusinessKey: "order 1", Attempt: 2,
		Target: message.Target{Contract: "pb:1"},
		Trace:  message.Trace{TraceID: [16]byte{1, 15: 2}, SpanID: [8]byte{3, 7: 4}, Flags: 1, State: "x=y"},
	}
	md := metadata.MD{"own": {"1"}}
	Write(md, call)
	var back message.Call
	Read(md, &back)
	want := *call
	want.Headers = []message.Pair{{Key: "own", Value: []byte("1")}}
	if d := cmp.Diff(want, back); d != "" {
		t.Error(d)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01", "3", "a,b")
	f.Add("ff-x", "-1", "")
	f.Fuzz(func(t *testing.T, traceparent, attempt, chain string) {
		var call message.Call
		Read(metadata.MD{Traceparent: {traceparent}, Attempt: {attempt}, Chain: {chain}}, &call)
		md := metadata.MD{}
		Write(md, &call)
		var again message.Call
		Read(md, &again)
		if call.Trace.TraceID != again.Trace.TraceID || call.Attempt != again.Attempt {
			t.Errorf("%+v became %+v", call, again)
		}
	})
}
