package telford

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestCallGoStructs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callee := w.service("echo", "in_a")
	if err := Handle(callee, "echo", func(_ context.Context, in *echoReq) (*echoResp, error) {
		return &echoResp{Text: in.Text + "!"}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := HandleStream(callee, "count", func(_ context.Context, in *echoReq, out *Sender[echoResp]) error {
		for i := range in.N {
			if err := out.Send(&echoResp{Text: string(rune('a' + i))}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.start(callee)
	caller := w.start(w.service("caller", "in_b", CallerOnly()))
	w.introduce()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resp, err := Call[echoResp](ctx, caller, "echo", "echo", &echoReq{Text: "hi"})
	if err != nil || resp.Text != "hi!" {
		t.Fatalf("got %v, %v", resp, err)
	}
	var got string
	for chunk, err := range Stream[echoResp](ctx, caller, "echo", "count", &echoReq{N: 5}) {
		if err != nil {
			t.Fatal(err)
		}
		got += chunk.Text
	}
	if got != "abcde" {
		t.Fatalf("got %q", got)
	}
	if _, err := Call[echoResp](ctx, caller, "echo", "nope", &echoReq{}); !errors.Is(err, ErrMethodNotFound) {
		t.Fatalf("unknown method: %v", err)
	}
}
