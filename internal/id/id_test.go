package id_test

import (
	"testing"
	"time"

	"telford.dev/telford/internal/id"
)

func TestIncreasesInsideOneMillisecond(t *testing.T) {
	t.Parallel()
	var s id.Source
	now := time.UnixMilli(1_700_000_000_000)
	last := ""
	for i := range 5000 {
		got := s.New("in", now)
		if got <= last {
			t.Fatalf("id %d: %q after %q", i, got, last)
		}
		if !id.Valid("in", got) {
			t.Fatalf("%q is not valid", got)
		}
		last = got
	}
	if later := s.New("in", now.Add(time.Second)); later <= last {
		t.Fatalf("%q a second later sorts before %q", later, last)
	}
}

func TestValid(t *testing.T) {
	t.Parallel()
	good := id.New("key")
	for text, want := range map[string]bool{
		good: true, "in" + good[3:]: false, good + "0": false, good[:len(good)-1]: false,
		"key_" + "uuuuuuuuuuuuuuuuuuuuuuuuuu": false, "": false,
	} {
		if id.Valid("key", text) != want {
			t.Errorf("Valid(%q) = %v", text, !want)
		}
	}
}
