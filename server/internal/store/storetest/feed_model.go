package storetest

import (
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/tx"
)

// feedModel is the part of the model that means the feed.
type feedModel struct {
	heads  map[string]feed.Head
	events map[string]feed.Row
}

func newFeedModel() feedModel { return feedModel{map[string]feed.Head{}, map[string]feed.Row{}} }

func (m *feedModel) clone() feedModel { return feedModel{maps.Clone(m.heads), maps.Clone(m.events)} }

func (m *feedModel) AdvanceFeed(_ tx.Tx, namespace string, ticks int64) (feed.Head, error) {
	h := m.heads[namespace]
	h.Seq++
	h.Ticks = max(ticks, h.Ticks+1)
	m.heads[namespace] = h
	return h, nil
}

func (m *feedModel) FeedHead(_ tx.Tx, namespace string) (feed.Head, error) {
	return m.heads[namespace], nil
}

func (m *feedModel) InsertEvent(_ tx.Tx, row *feed.Row) error {
	k := row.Namespace + "\x00" + row.ID.String()
	if _, ok := m.events[k]; ok {
		return tx.ErrExists
	}
	c := *row
	c.Payload = append([]byte{}, row.Payload...)
	m.events[k] = c
	return nil
}

// of returns the events of a namespace for which f holds, in the order of less.
func (m *feedModel) of(namespace string, order func(a, b *feed.Row) int, f func(*feed.Row) bool) []*feed.Row {
	var all []*feed.Row
	for _, row := range m.events {
		if row.Namespace == namespace && f(&row) {
			all = append(all, &row)
		}
	}
	slices.SortFunc(all, order)
	return all
}

func byID(a, b *feed.Row) int  { return a.ID.Compare(b.ID) }
func bySeq(a, b *feed.Row) int { return int(a.Seq - b.Seq) }

// page cuts what is wanted of a range out of what there is.
func page(r *feed.Range, all []*feed.Row) []*feed.Row {
	if len(r.Types) > 0 {
		all = slices.DeleteFunc(all, func(row *feed.Row) bool { return !slices.Contains(r.Types, row.Type) })
	}
	bytes := 0
	for i, row := range all {
		if bytes += len(row.Payload); i == r.Limit || i > 0 && bytes > r.MaxBytes {
			row.Payload = nil
			return all[:i+1]
		}
	}
	return all
}

func (m *feedModel) Events(_ tx.Tx, r *feed.Range, from, until feed.ID) ([]*feed.Row, error) {
	return page(r, m.of(r.Namespace, byID, func(row *feed.Row) bool { return row.ID.Compare(from) >= 0 && row.ID.Compare(until) < 0 })), nil
}

func (m *feedModel) EventsAfter(_ tx.Tx, r *feed.Range, after, until int64) ([]*feed.Row, error) {
	return page(r, m.of(r.Namespace, bySeq, func(row *feed.Row) bool { return row.Seq > after && row.Seq <= until })), nil
}

func (m *feedModel) EventSeq(_ tx.Tx, namespace string, id feed.ID) (int64, error) {
	row, ok := m.events[namespace+"\x00"+id.String()]
	if !ok {
		return 0, tx.ErrNotFound
	}
	return row.Seq, nil
}

func (m *feedModel) FirstSeq(_ tx.Tx, namespace string, from feed.ID) (int64, error) {
	all := m.of(namespace, bySeq, func(row *feed.Row) bool { return row.ID.Compare(from) >= 0 })
	if len(all) == 0 {
		return 0, tx.ErrNotFound
	}
	return all[0].Seq, nil
}

func (m *feedModel) FeedNamespaces(tx.Tx) ([]string, error) {
	return slices.Sorted(maps.Keys(m.heads)), nil
}

func (m *feedModel) PruneEvents(_ tx.Tx, namespace string, before int64, most int) (int, error) {
	old := m.of(namespace, byID, func(row *feed.Row) bool { return row.ID.Ticks < before })
	old = old[:min(most, len(old))]
	h := m.heads[namespace]
	for _, row := range old {
		h.PrunedSeq, h.PrunedTicks = max(h.PrunedSeq, row.Seq), max(h.PrunedTicks, row.ID.Ticks)
		delete(m.events, namespace+"\x00"+row.ID.String())
	}
	if _, ok := m.heads[namespace]; ok {
		m.heads[namespace] = h
	}
	return len(old), nil
}

func (m *feedModel) DeleteFeed(_ tx.Tx, namespace string) error {
	delete(m.heads, namespace)
	maps.DeleteFunc(m.events, func(_ string, row feed.Row) bool { return row.Namespace == namespace })
	return nil
}

// feedOperations are those of the feed. An event is inserted as the domain does it, with
// the number of its head.
func feedOperations(t *rapid.T) []operation {
	namespace := somewhere.Draw(t, "feed namespace")
	ids := rapid.Custom(func(t *rapid.T) feed.ID {
		return feedID(rapid.Int64Range(0, 6).Draw(t, "ticks"), rapid.SampledFrom([]byte{0, 0x7f, 0x80, 0xff}).Draw(t, "rest"))
	})
	id, from, until := ids.Draw(t, "event"), ids.Draw(t, "from"), ids.Draw(t, "until")
	low, high := rapid.Int64Range(0, 4).Draw(t, "low"), rapid.Int64Range(0, 8).Draw(t, "high")
	r := feed.Range{
		Namespace: namespace, Limit: rapid.IntRange(1, 4).Draw(t, "limit"), MaxBytes: rapid.IntRange(1, 12).Draw(t, "bytes"),
		Types: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 2, rapid.ID[string]).Draw(t, "types"),
	}
	row := feed.Row{
		Namespace: namespace, ID: id, Type: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "type"),
		Payload: rapid.SliceOfN(rapid.Byte(), 1, 6).Draw(t, "payload"),
	}
	all := []operation{
		{"AppendEvent", func(s Store, t tx.Tx) (any, error) {
			h, err := s.AdvanceFeed(t, namespace, low)
			if err != nil {
				return h, err
			}
			row.Seq = h.Seq
			return h, s.InsertEvent(t, &row)
		}},
		{"FeedHead", func(s Store, t tx.Tx) (any, error) { return s.FeedHead(t, namespace) }},
		{"Events", func(s Store, t tx.Tx) (any, error) { return s.Events(t, &r, from, until) }},
		{"EventsAfter", func(s Store, t tx.Tx) (any, error) { return s.EventsAfter(t, &r, low, high) }},
		{"EventSeq", func(s Store, t tx.Tx) (any, error) { return s.EventSeq(t, namespace, id) }},
		{"FirstSeq", func(s Store, t tx.Tx) (any, error) { return s.FirstSeq(t, namespace, from) }},
		{"FeedNamespaces", func(s Store, t tx.Tx) (any, error) { return s.FeedNamespaces(t) }},
		{"PruneEvents", func(s Store, t tx.Tx) (any, error) { return s.PruneEvents(t, namespace, high, int(low)) }},
		{"DeleteFeed", func(s Store, t tx.Tx) (any, error) { return nil, s.DeleteFeed(t, namespace) }},
	}
	for i := range all {
		all[i].name += fmt.Sprintf("[%q %v %v %v %d %d %+v]", namespace, id, from, until, low, high, r)
	}
	return all
}
