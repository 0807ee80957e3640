package engine

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/server/internal/tx"
)

func files(names ...string) fstest.MapFS {
	all := fstest.MapFS{}
	for _, name := range names {
		all["m/"+name] = &fstest.MapFile{Data: []byte("-- " + name)}
	}
	return all
}

func TestMigrations(t *testing.T) {
	t.Parallel()
	got, err := Migrations(files("0002_two.sql", "0001_one.sql"), "m")
	want := []Migration{{1, "one", "-- 0001_one.sql"}, {2, "two", "-- 0002_two.sql"}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	for _, bad := range []fstest.MapFS{
		files("0001_one.sql", "0003_three.sql"), files("0002_two.sql"), files("one.sql"), files("0001_one.txt"),
		files("0001_one.sql", "0001_uno.sql"),
		{},
	} {
		if _, err := Migrations(bad, "m"); err == nil {
			t.Errorf("accepted %v", bad)
		}
	}
}

func TestPending(t *testing.T) {
	t.Parallel()
	steps := []Migration{{Version: 1, Name: "one"}, {Version: 2, Name: "two"}, {Version: 3, Name: "three"}}
	for n := range len(steps) + 1 { // from every older version
		got, err := Pending("db", steps, steps[:n])
		if err != nil || len(got) != len(steps)-n {
			t.Errorf("from %d: %v, %v", n, got, err)
		}
	}
	for text, applied := range map[string][]Migration{
		"version 4 (four)": append(append([]Migration{}, steps...), Migration{Version: 4, Name: "four"}),
		`step 1 "uno"`:     {{Version: 1, Name: "uno"}},
		`step 2 "two"`:     {{Version: 2, Name: "two"}},
	} {
		if _, err := Pending("db", steps, applied); err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "db") {
			t.Errorf("%v: %v, want %q in it", applied, err, text)
		}
	}
}

func TestInstantsSurvive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMicro(rapid.Int64Range(-1<<52, 1<<52).Draw(t, "µs")).UTC()
		if got := Time(Micros(at)); !got.Equal(at) && at.UnixMicro() != 0 {
			t.Fatalf("%v came back as %v", at, got)
		}
	})
	if !Time(Micros(time.Time{})).IsZero() {
		t.Error("the zero time came back as something")
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	size, err := CheckArgs([]any{int64(1), "four", []byte("fives"), true, []byte(nil)})
	if size != 8+4+5+8 || err != nil {
		t.Errorf("%d, %v", size, err)
	}
	for _, bad := range []any{1, uint64(1), 1.5, nil, time.Now(), "\x00", "\xc3", strings.Repeat("x", 1000) + "\x00"} {
		if _, err := CheckArgs([]any{"fine", bad}); !errors.Is(err, tx.ErrInvalid) || !strings.Contains(err.Error(), "parameter 2") || len(err.Error()) > 300 {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestTheFirstErrorFailsTheTransaction(t *testing.T) {
	t.Parallel()
	var s State
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	if s.Begin() == nil {
		t.Error("a statement inside a statement")
	}
	broken := errors.New("broken")
	_ = s.End(broken)
	if err := s.Begin(); !errors.Is(err, broken) {
		t.Errorf("a later statement: %v", err)
	}
	if err := s.Finish(nil); !errors.Is(err, broken) {
		t.Errorf("the whole: %v", err)
	}
	if s.Begin() == nil {
		t.Error("a statement after the end")
	}
}
