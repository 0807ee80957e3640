package storetest

import (
	"testing"
	"time"

	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/tx"
)

func value(id, text string, revision int64) config.Value {
	return config.Value{Namespace: "default", ID: id, Value: text, JSON: revision%2 == 0, Revision: revision, Author: "änna", At: day.Add(time.Duration(revision) * time.Second)}
}

func revision(id, text string, revision, n, total int64) *config.Row {
	r := &config.Row{N: n, Total: total}
	r.Value = value(id, text, revision)
	r.Removed, r.Restored = text == "", revision/3
	return r
}

func testConfig(t *testing.T, open Open) {
	s := open(t)
	head := func(want config.Head) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.ConfigHead(t2, "default")
			equal(t, "head", got, want)
			return err
		})
	}
	head(config.Head{})
	h := config.Head{Revision: 7, At: day, Forgotten: 3, Count: 2, Bytes: 1 << 40}
	write(t, s, func(t2 tx.Tx) error {
		got, err := s.LockConfig(t2, "default")
		equal(t, "locked", got, config.Head{})
		if err != nil {
			return err
		}
		return s.PutConfigHead(t2, "default", h)
	})
	head(h)
	write(t, s, func(t2 tx.Tx) error {
		got, err := s.LockConfig(t2, "default")
		equal(t, "locked again", got, h)
		return err
	})

	// Capitals before small letters, namespaces before plain ids; a NUL is text, too.
	a, b, c, d := value("/a/key", "1\x00", 1), value("/b/key", "☂", 2), value("Z", "333", 3), value("a", "", 4)
	other := value("a", "other", 1)
	other.Namespace = "other"
	write(t, s, func(t2 tx.Tx) error {
		for _, v := range []config.Value{d, c, b, a, other} {
			if err := s.PutConfigValue(t2, &v); err != nil {
				return err
			}
		}
		return nil
	})
	list := func(limit, bytes int, from, until, wantNext string, want ...config.Value) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, next, err := s.ConfigValues(t2, &config.Range{Namespace: "default", Limit: limit, MaxBytes: bytes}, from, until)
			var all []config.Value
			for _, v := range got {
				all = append(all, *v)
			}
			equal(t, "values", all, want)
			equal(t, "next", next, wantNext)
			return err
		})
	}
	list(10, 100, "", "\x7f", "", a, b, c, d)
	list(10, 100, "/", "/\x7f", "", a, b)
	list(10, 100, "/a/", "/a/\x7f", "", a)
	list(10, 100, "/b", "\x7f", "", b, c, d)
	list(2, 100, "", "\x7f", "Z", a, b)
	list(10, 5, "", "\x7f", "Z", a, b)
	list(10, 3, "Z", "\x7f", "", c, d) // what is empty has room
	b2 := value("/b/key", "a longer one", 8)
	write(t, s, func(t2 tx.Tx) error {
		if err := s.PutConfigValue(t2, &b2); err != nil {
			return err
		}
		return s.DeleteConfigValue(t2, "default", "Z")
	})
	list(10, 100, "", "\x7f", "", a, b2, d)
	read(t, s, func(t2 tx.Tx) error {
		got, err := s.ConfigValue(t2, "default", b2.ID)
		equal(t, "value", got, &b2)
		return err
	})
	is(t, "a value that is not there", s.Read(t.Context(), func(t2 tx.Tx) error {
		_, err := s.ConfigValue(t2, "default", "Z")
		return err
	}), tx.ErrNotFound)
	is(t, "removing it", s.Write(t.Context(), func(t2 tx.Tx) error { return s.DeleteConfigValue(t2, "default", "Z") }), tx.ErrNotFound)

	write(t, s, func(t2 tx.Tx) error { return s.DeleteConfig(t2, "default") })
	list(10, 100, "", "\x7f", "")
	head(config.Head{})
	read(t, s, func(t2 tx.Tx) error {
		got, err := s.ConfigValue(t2, "other", "a")
		equal(t, "that of another namespace", got, &other)
		return err
	})
}

func testConfigHistory(t *testing.T, open Open) {
	s := open(t)
	a1, a2, b3, a4 := revision("a", "1", 1, 1, 1), revision("a", "22", 2, 2, 3), revision("b", "3", 3, 1, 1), revision("a", "", 4, 3, 3)
	write(t, s, func(t2 tx.Tx) error {
		for _, r := range []*config.Row{a1, a2, b3, a4} {
			if err := s.AddConfigRevision(t2, r); err != nil {
				return err
			}
		}
		return nil
	})
	is(t, "a revision twice", s.Write(t.Context(), func(t2 tx.Tx) error { return s.AddConfigRevision(t2, revision("c", "x", 4, 1, 1)) }), tx.ErrExists)
	history := func(limit, bytes int, before, wantNext int64, want ...*config.Row) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, next, err := s.ConfigHistory(t2, &config.Range{Namespace: "default", Limit: limit, MaxBytes: bytes}, "a", before)
			equal(t, "history", got, want)
			equal(t, "next", next, wantNext)
			return err
		})
	}
	history(10, 100, 100, 0, a4, a2, a1)
	history(10, 100, 4, 0, a2, a1)
	history(2, 100, 100, 1, a4, a2)
	history(10, 2, 100, 1, a4, a2)
	history(10, 100, 1, 0)
	changes := func(limit int, from, until string, after, last, wantNext int64, want ...*config.Row) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, next, err := s.ConfigChanges(t2, &config.Range{Namespace: "default", Limit: limit, MaxBytes: 100}, from, until, after, last)
			equal(t, "changes", got, want)
			equal(t, "next", next, wantNext)
			return err
		})
	}
	changes(10, "", "\x7f", 0, 100, 0, a1, a2, b3, a4)
	changes(10, "", "\x7f", 1, 3, 0, a2, b3)
	changes(10, "b", "b\x7f", 0, 100, 0, b3)
	changes(2, "", "\x7f", 0, 100, 3, a1, a2)
	read(t, s, func(t2 tx.Tx) error {
		got, err := s.ConfigRevision(t2, "default", "a", 2)
		equal(t, "a revision", got, a2)
		if err != nil {
			return err
		}
		got, err = s.LastConfigRevision(t2, "default", "a")
		equal(t, "the last revision", got, a4)
		return err
	})
	for id, n := range map[string]int64{"a": 3, "b": 4, "c": 1} {
		is(t, "a revision of another id", s.Read(t.Context(), func(t2 tx.Tx) error {
			_, err := s.ConfigRevision(t2, "default", id, n)
			return err
		}), tx.ErrNotFound)
	}
	is(t, "the last revision of nothing", s.Read(t.Context(), func(t2 tx.Tx) error {
		_, err := s.LastConfigRevision(t2, "default", "c")
		return err
	}), tx.ErrNotFound)

	trim := func(n, total, last, want int64) {
		t.Helper()
		write(t, s, func(t2 tx.Tx) error {
			got, err := s.TrimConfigHistory(t2, "default", "a", n, total, last)
			equal(t, "trimmed up to", got, want)
			return err
		})
	}
	trim(0, 0, 9, 0)
	trim(1, -5, 9, 1)
	history(10, 100, 100, 0, a4, a2)
	trim(-5, 3, 3, 2) // the one above the last stays
	history(10, 100, 100, 0, a4)

	// The revision of a value that there is stays, however old.
	now := b3.Value
	write(t, s, func(t2 tx.Tx) error {
		if err := s.PutConfigValue(t2, &now); err != nil {
			return err
		}
		for _, c := range []struct {
			before  time.Duration
			n       int
			highest int64
		}{{4 * time.Second, 0, 0}, {time.Hour, 1, 4}, {time.Hour, 0, 0}} {
			n, highest, err := s.ForgetConfig(t2, "default", day.Add(c.before), 10)
			if err != nil {
				return err
			}
			equal(t, "forgotten", []int64{int64(n), highest}, []int64{int64(c.n), c.highest})
		}
		return nil
	})
	changes(10, "", "\x7f", 0, 100, 0, b3)
	write(t, s, func(t2 tx.Tx) error {
		for _, name := range []string{"x", "A"} {
			if _, err := s.LockConfig(t2, name); err != nil {
				return err
			}
		}
		names, err := s.ConfigNamespaces(t2)
		equal(t, "namespaces", names, []string{"A", "x"})
		return err
	})
}
