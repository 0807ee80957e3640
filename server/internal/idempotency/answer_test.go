package idempotency

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

var (
	someText  = rapid.SampledFrom([]string{"", "x", "a longer text", "ü\x00"})
	somePairs = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) message.Pair {
		return message.Pair{Key: someText.Draw(t, "key"), Value: some(rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value"))}
	}), 0, 3)
)

// some is nil for nothing, as answers are read back.
func some[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

func answers() *rapid.Generator[*answer] {
	return rapid.Custom(func(t *rapid.T) *answer {
		var e *errs.Error
		if rapid.Bool().Draw(t, "failed") {
			e = errs.New(rapid.SampledFrom(errs.Codes()).Draw(t, "code"), "%s", someText.Draw(t, "message"))
			e.GRPCCode, e.Retryable = codes.Code(rapid.Uint32Range(0, 20).Draw(t, "grpc")), rapid.Bool().Draw(t, "retryable")
			e.RetryAfter = time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "after"))
			e = e.In(someText.Draw(t, "component"), someText.Draw(t, "operation"))
			if rapid.Bool().Draw(t, "facts") {
				e = e.With(someText.Draw(t, "k"), someText.Draw(t, "v"))
			}
			for range rapid.IntRange(0, 2).Draw(t, "details") {
				e.Details = append(e.Details, []byte("detail"))
			}
		}
		if e != nil && rapid.Bool().Draw(t, "way") {
			return &answer{err: e}
		}
		return &answer{reply: &message.Reply{
			Err: e, ContentType: message.ContentType(rapid.Uint8Range(0, 3).Draw(t, "ct")), Body: some(rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "body")),
			Headers: some(somePairs.Draw(t, "headers")), Trailers: some(somePairs.Draw(t, "trailers")),
		}}
	})
}

var compareAnswers = []cmp.Option{
	cmp.AllowUnexported(answer{}), cmp.Comparer(func(a, b *errs.Error) bool { return (a == nil) == (b == nil) && (a == nil || sameError(a, b)) }),
}

func TestAnswersComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := answers().Draw(t, "answer")
		b := a.marshal()
		back, err := unmarshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, back, compareAnswers...); d != "" {
			t.Fatal(d)
		}
		if len(b) > a.size()+200 {
			t.Fatalf("%d bytes for an answer of %d", len(b), a.size())
		}
		for i := range b {
			if _, err := unmarshal(b[:i]); err == nil {
				t.Fatalf("%d of %d bytes were taken for an answer", i, len(b))
			}
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	f.Add((&answer{reply: &message.Reply{Body: []byte("x"), Headers: []message.Pair{{Key: "k", Value: []byte("v")}}}}).marshal())
	f.Add((&answer{err: errs.New(errs.Handler, "x").With("a", "b")}).marshal())
	f.Add([]byte{1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := unmarshal(b)
		if err != nil {
			return
		}
		if a.reply == nil && a.err == nil {
			t.Fatal("an answer that is nothing")
		}
		again, err := unmarshal(a.marshal())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, again, compareAnswers...); d != "" {
			t.Error(d)
		}
	})
}
