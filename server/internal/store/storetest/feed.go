package storetest

import (
	"testing"

	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/tx"
)

func feedID(ticks int64, rest ...byte) feed.ID {
	i := feed.ID{Ticks: ticks}
	copy(i.Rest[:], rest)
	return i
}

func event(id feed.ID, seq int64, typ, payload string) *feed.Row {
	return &feed.Row{Namespace: "default", ID: id, Seq: seq, Type: typ, Payload: []byte(payload)}
}

// without is an event as it stands behind a page.
func without(row *feed.Row) *feed.Row {
	c := *row
	c.Payload = nil
	return &c
}

func testFeed(t *testing.T, open Open) {
	s := open(t)
	head := func(want feed.Head) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.FeedHead(t2, "default")
			equal(t, "head", got, want)
			return err
		})
	}
	head(feed.Head{})
	for _, c := range []struct {
		ticks int64
		want  feed.Head
	}{
		{0, feed.Head{Seq: 1, Ticks: 1}},
		{100, feed.Head{Seq: 2, Ticks: 100}},
		{100, feed.Head{Seq: 3, Ticks: 101}},
		{7, feed.Head{Seq: 4, Ticks: 102}},
	} {
		write(t, s, func(t2 tx.Tx) error {
			got, err := s.AdvanceFeed(t2, "default", c.ticks)
			equal(t, "advanced", got, c.want)
			return err
		})
	}
	head(feed.Head{Seq: 4, Ticks: 102})

	// The bytes behind the time compare without a sign; the third was dated back.
	a, b, c, d := event(feedID(10, 0x7f), 1, "a", `{"☂":1}`), event(feedID(10, 0x80), 2, "b", `{"n":22}`),
		event(feedID(5), 3, "a", `{}`), event(feedID(20), 4, "c", `{"long":"0123456789"}`)
	write(t, s, func(t2 tx.Tx) error {
		for _, row := range []*feed.Row{a, b, c, d, {Namespace: "other", ID: a.ID, Seq: 1, Type: "a", Payload: []byte("{}")}} {
			if err := s.InsertEvent(t2, row); err != nil {
				return err
			}
		}
		return nil
	})
	is(t, "an id twice", s.Write(t.Context(), func(t2 tx.Tx) error {
		return s.InsertEvent(t2, event(a.ID, 9, "x", `{}`))
	}), tx.ErrExists)

	end := feedID(1 << 59)
	list := func(r feed.Range, from, until feed.ID, want ...*feed.Row) {
		t.Helper()
		r.Namespace = "default"
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.Events(t2, &r, from, until)
			equal(t, "events", got, want)
			return err
		})
	}
	all := feed.Range{Limit: 10, MaxBytes: 1000}
	list(all, feed.ID{}, end, c, a, b, d)
	list(all, b.ID, end, b, d)
	list(all, feedID(10, 0x7f, 1), d.ID, b)
	list(all, feedID(21), end)
	list(feed.Range{Limit: 2, MaxBytes: 1000}, feed.ID{}, end, c, a, without(b))
	list(feed.Range{Limit: 10, MaxBytes: 13}, feed.ID{}, end, c, a, without(b))
	list(feed.Range{Limit: 10, MaxBytes: 1}, d.ID, end, d)
	list(feed.Range{Limit: 10, MaxBytes: 1}, b.ID, end, b, without(d))
	list(feed.Range{Limit: 10, MaxBytes: 1000, Types: []string{"a", "c"}}, feed.ID{}, end, c, a, d)
	list(feed.Range{Limit: 1, MaxBytes: 1000, Types: []string{"a"}}, feed.ID{}, end, c, without(a))

	after := func(r feed.Range, after, until int64, want ...*feed.Row) {
		t.Helper()
		r.Namespace = "default"
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.EventsAfter(t2, &r, after, until)
			equal(t, "events by number", got, want)
			return err
		})
	}
	after(all, 0, 9, a, b, c, d)
	after(all, 1, 3, b, c)
	after(feed.Range{Limit: 1, MaxBytes: 1000, Types: []string{"a"}}, 0, 9, a, without(c))

	first := func(from feed.ID, want int64, fails error) {
		t.Helper()
		is(t, "the first number", s.Read(t.Context(), func(t2 tx.Tx) error {
			got, err := s.FirstSeq(t2, "default", from)
			equal(t, "first", got, want)
			return err
		}), fails)
	}
	first(feed.ID{}, 1, nil)
	first(b.ID, 2, nil)
	first(feedID(21), 0, tx.ErrNotFound)
	is(t, "an id that is not there", s.Read(t.Context(), func(t2 tx.Tx) error {
		_, err := s.EventSeq(t2, "default", feedID(11))
		return err
	}), tx.ErrNotFound)
	read(t, s, func(t2 tx.Tx) error {
		got, err := s.EventSeq(t2, "default", b.ID)
		equal(t, "number", got, int64(2))
		return err
	})

	prune := func(before int64, most, want int) {
		t.Helper()
		write(t, s, func(t2 tx.Tx) error {
			got, err := s.PruneEvents(t2, "default", before, most)
			equal(t, "removed", got, want)
			return err
		})
	}
	prune(5, 10, 0)
	prune(11, 2, 2)
	list(all, feed.ID{}, end, b, d)
	head(feed.Head{Seq: 4, Ticks: 102, PrunedSeq: 3, PrunedTicks: 10})
	prune(11, 2, 1)
	list(all, feed.ID{}, end, d)
	head(feed.Head{Seq: 4, Ticks: 102, PrunedSeq: 3, PrunedTicks: 10})
	write(t, s, func(t2 tx.Tx) error {
		if _, err := s.AdvanceFeed(t2, "Other", 1); err != nil {
			return err
		}
		names, err := s.FeedNamespaces(t2)
		equal(t, "namespaces", names, []string{"Other", "default"})
		return err
	})
	write(t, s, func(t2 tx.Tx) error { return s.DeleteFeed(t2, "default") })
	head(feed.Head{})
	list(all, feed.ID{}, end)
}
