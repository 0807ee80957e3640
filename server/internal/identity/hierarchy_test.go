package identity

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/ident"
)

// TestDueIsInOrder: whatever the lives are, the phases come one after another, the new
// root signs before the old one ends, and no leaf below the old one is alive when it is
// retired.
func TestDueIsInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		leaf := time.Duration(rapid.Int64Range(int64(2*time.Second), int64(30*24*time.Hour)).Draw(t, "leaf"))
		life := time.Duration(rapid.Int64Range(int64(leaf), int64(20*365*24*time.Hour)).Draw(t, "root"))
		made := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
		old, _, err := newAuthority(caTemplate("old", "d", made, life), nil)
		if err != nil {
			t.Fatal(err)
		}
		l := lives{leaf}
		h := &hierarchy{Phase: Steady, Since: made, Roots: []root{{Generation: 1, State: rootActive, cert: old.cert, Made: madeAt(old.cert)}}}
		next, begin := h.due(l)
		if next != Distributing || begin.Before(made.Add(life*2/3-2*time.Second)) || begin.After(made.Add(life*2/3)) {
			t.Fatalf("%s at %s of a root of %s", next, begin.Sub(made), life)
		}
		// Whoever begins it may come late, up to the end of the root.
		end := old.cert.NotAfter
		if late := end.Sub(begin); late > 0 {
			begin = begin.Add(time.Duration(rapid.Int64Range(0, int64(late)).Draw(t, "late")))
		}
		h = &hierarchy{Phase: Distributing, Since: begin, Roots: []root{h.Roots[0], {State: rootNext}}}
		next, sign := h.due(l)
		if next != Signing || sign.Before(begin) || sign.After(begin.Add(l.wait())) || begin.Before(end) && sign.After(end) {
			t.Fatalf("%s from %s to %s, the root ends at %s", next, begin, sign, end)
		}
		if room := end.Sub(begin) / 3; room >= l.wait() && sign.Sub(begin) < leaf {
			t.Fatalf("signed after %s, before leaves of %s have heard of it", sign.Sub(begin), leaf)
		}
		h = &hierarchy{Phase: Signing, Since: sign, Roots: []root{{State: rootRetiring, cert: old.cert}, {State: rootActive}}}
		next, retire := h.due(l)
		last := sign.Add(leaf) // a leaf of the last moment, or the end of all
		if last.After(end) {
			last = end
		}
		if next != Retiring || retire.Before(sign) || retire.Before(last) || retire.After(sign.Add(l.wait())) {
			t.Fatalf("%s at %s, the last leaf ends at %s", next, retire, last)
		}
	})
}

// FuzzHierarchy: what stands in the database is read, or refused, and read back as it
// was written.
func FuzzHierarchy(f *testing.F) {
	now := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	old, _, err := newAuthority(caTemplate("old", "d", now, time.Hour), nil)
	if err != nil {
		f.Fatal(err)
	}
	fresh, _, err := newAuthority(caTemplate("new", "d", now, time.Hour), nil)
	if err != nil {
		f.Fatal(err)
	}
	ways, err := linked(nil, old, fresh)
	if err != nil {
		f.Fatal(err)
	}
	for _, h := range []hierarchy{
		{Format: 1, Phase: Steady, Since: now, Roots: []root{{Generation: 1, State: rootActive, Cert: old.cert.Raw, Made: now}}},
		{
			Format: 1, Revision: 2, Phase: Signing, Since: now, Former: ways,
			Roots: []root{{Generation: 1, State: rootRetiring, Cert: old.cert.Raw, Made: now}, {Generation: 2, State: rootActive, Cert: fresh.cert.Raw}},
		},
	} {
		row, err := h.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(row)
	}
	for _, text := range []string{``, `null`, `{}`, `{"format":2}`, `{"phase":"steady","roots":[{"state":"active","cert":"AAAA"}]}`, `{"phase":"signing"}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		h, err := parseHierarchy(row)
		if err != nil {
			return
		}
		// Nothing of what is asked of it fails.
		h.due(lives{time.Hour})
		h.ways()
		h.bridges(ident.SPKI(h.active().cert))
		if !h.pinnable(ident.SPKI(h.active().cert)) || h.domain() == "" && len(h.trusted()) == 0 {
			t.Error("the active root is not one that keys can be pinned to")
		}
		again, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseHierarchy(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := back.encode(); err != nil || !bytes.Equal(again, third) || !json.Valid(third) {
			t.Errorf("written %s, then %s, %v", again, third, err)
		}
	})
}
