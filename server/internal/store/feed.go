package store

import (
	"errors"
	"fmt"
	"strconv"

	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// AdvanceFeed implements feed.Storage: the row stays locked until t ends.
func (s *Store) AdvanceFeed(t tx.Tx, namespace string, ticks int64) (feed.Head, error) {
	_, err := exec(t, `INSERT INTO feed_heads (namespace, seq, ticks, pruned_seq, pruned_ticks) VALUES ($1, 1, $2, 0, 0)
		ON CONFLICT (namespace) DO UPDATE SET seq = feed_heads.seq + 1,
			ticks = CASE WHEN excluded.ticks > feed_heads.ticks THEN excluded.ticks ELSE feed_heads.ticks + 1 END`,
		namespace, max(ticks, 1))
	if err != nil {
		return feed.Head{}, fmt.Errorf("advance the feed of namespace %s: %w", namespace, err)
	}
	return s.FeedHead(t, namespace)
}

// FeedHead implements feed.Storage.
func (s *Store) FeedHead(t tx.Tx, namespace string) (feed.Head, error) {
	h, err := one(t, func(r engine.Row) (h feed.Head, err error) {
		err = r.Scan(&h.Seq, &h.Ticks, &h.PrunedSeq, &h.PrunedTicks)
		return h, err
	}, `SELECT seq, ticks, pruned_seq, pruned_ticks FROM feed_heads WHERE namespace = $1`, namespace)
	if err != nil && !errors.Is(err, tx.ErrNotFound) {
		return h, fmt.Errorf("head of the feed of namespace %s: %w", namespace, err)
	}
	return h, nil
}

// InsertEvent implements feed.Storage.
func (s *Store) InsertEvent(t tx.Tx, row *feed.Row) error {
	n, err := exec(t, `INSERT INTO feed (namespace, ticks, rest, seq, type, size, payload)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (namespace, ticks, rest) DO NOTHING`,
		row.Namespace, row.ID.Ticks, row.ID.Rest[:], row.Seq, row.Type, int64(len(row.Payload)), bytesOf(row.Payload))
	return inserted(n, err, "event", row.ID)
}

// Events implements feed.Storage.
func (s *Store) Events(t tx.Tx, r *feed.Range, from, until feed.ID) ([]*feed.Row, error) {
	all, err := events(t, r, ` AND (ticks, rest) >= ($2, $3) AND (ticks, rest) < ($4, $5)`, `ticks, rest`,
		from.Ticks, from.Rest[:], until.Ticks, until.Rest[:])
	if err != nil {
		return nil, fmt.Errorf("list the events of namespace %s: %w", r.Namespace, err)
	}
	return all, nil
}

// EventsAfter implements feed.Storage.
func (s *Store) EventsAfter(t tx.Tx, r *feed.Range, after, until int64) ([]*feed.Row, error) {
	all, err := events(t, r, ` AND seq > $2 AND seq <= $3`, `seq`, after, until)
	if err != nil {
		return nil, fmt.Errorf("list the events of namespace %s from number %d: %w", r.Namespace, after, err)
	}
	return all, nil
}

// events reads rows without their payloads, and then the payloads of as many as have room.
func events(t tx.Tx, r *feed.Range, where, order string, args ...any) ([]*feed.Row, error) {
	args = append([]any{r.Namespace}, args...)
	if len(r.Types) > 0 {
		where += ` AND type IN (`
		for i, typ := range r.Types {
			if i > 0 {
				where += `, `
			}
			args = append(args, typ)
			where += `$` + strconv.Itoa(len(args))
		}
		where += `)`
	}
	var sizes []int64
	rows, err := list(t, func(row engine.Row) (*feed.Row, error) {
		e := &feed.Row{Namespace: r.Namespace}
		var rest []byte
		var size int64
		if err := row.Scan(&e.ID.Ticks, &rest, &e.Seq, &e.Type, &size); err != nil {
			return nil, err
		}
		copy(e.ID.Rest[:], rest)
		sizes = append(sizes, size)
		return e, nil
	}, `SELECT ticks, rest, seq, type, size FROM feed WHERE namespace = $1`+where+
		` ORDER BY `+order+` LIMIT $`+strconv.Itoa(len(args)+1), append(args, int64(r.Limit)+1)...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	n := room(sizes, r.Limit, r.MaxBytes)
	payloads, err := list(t, func(row engine.Row) (b []byte, err error) {
		err = row.Scan(&b)
		return b, err
	}, `SELECT payload FROM feed WHERE namespace = $1`+where+` ORDER BY `+order+` LIMIT $`+strconv.Itoa(len(args)+1), append(args, int64(n))...)
	if err != nil {
		return nil, err
	}
	n = min(n, len(payloads))
	for i := range n {
		rows[i].Payload = payloads[i]
	}
	return rows[:min(n+1, len(rows))], nil
}

// room is how many of the first things with these sizes fit into a page: one at least.
func room(sizes []int64, limit, maxBytes int) int {
	n, total := 0, int64(0)
	for ; n < len(sizes) && n < limit; n++ {
		if total += sizes[n]; n > 0 && total > int64(maxBytes) {
			break
		}
	}
	return n
}

// EventSeq implements feed.Storage.
func (s *Store) EventSeq(t tx.Tx, namespace string, id feed.ID) (int64, error) {
	n, err := one(t, number, `SELECT seq FROM feed WHERE namespace = $1 AND ticks = $2 AND rest = $3`, namespace, id.Ticks, id.Rest[:])
	if err != nil {
		return 0, fmt.Errorf("event %s of namespace %s: %w", id, namespace, err)
	}
	return n, nil
}

// FirstSeq implements feed.Storage.
func (s *Store) FirstSeq(t tx.Tx, namespace string, from feed.ID) (int64, error) {
	n, err := one(t, number, `SELECT COALESCE(MIN(seq), 0) FROM feed WHERE namespace = $1 AND (ticks, rest) >= ($2, $3)`,
		namespace, from.Ticks, from.Rest[:])
	if err == nil && n == 0 {
		err = tx.ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("first event of namespace %s from %s: %w", namespace, from, err)
	}
	return n, nil
}

// FeedNamespaces implements feed.Storage.
func (s *Store) FeedNamespaces(t tx.Tx) ([]string, error) {
	all, err := list(t, func(r engine.Row) (name string, err error) {
		err = r.Scan(&name)
		return name, err
	}, `SELECT namespace FROM feed_heads ORDER BY namespace`)
	if err != nil {
		return nil, fmt.Errorf("list the namespaces with events: %w", err)
	}
	return all, nil
}

// PruneEvents implements feed.Storage.
func (s *Store) PruneEvents(t tx.Tx, namespace string, before int64, most int) (int, error) {
	old, err := list(t, func(r engine.Row) (row feed.Row, err error) {
		var rest []byte
		err = r.Scan(&row.ID.Ticks, &rest, &row.Seq)
		copy(row.ID.Rest[:], rest)
		return row, err
	}, `SELECT ticks, rest, seq FROM feed WHERE namespace = $1 AND ticks < $2 ORDER BY ticks, rest LIMIT $3`, namespace, before, int64(most))
	if err == nil && len(old) > 0 {
		last, seq := old[len(old)-1].ID, int64(0)
		for i := range old {
			seq = max(seq, old[i].Seq)
		}
		err = execAll(t, statement{
			`UPDATE feed_heads SET
				pruned_seq = CASE WHEN pruned_seq < $1 THEN $2 ELSE pruned_seq END,
				pruned_ticks = CASE WHEN pruned_ticks < $3 THEN $4 ELSE pruned_ticks END WHERE namespace = $5`,
			[]any{seq, seq, last.Ticks, last.Ticks, namespace},
		},
			statement{`DELETE FROM feed WHERE namespace = $1 AND (ticks, rest) <= ($2, $3)`, []any{namespace, last.Ticks, last.Rest[:]}})
	}
	if err != nil {
		return 0, fmt.Errorf("remove old events of namespace %s: %w", namespace, err)
	}
	return len(old), nil
}

// DeleteFeed implements feed.Storage.
func (s *Store) DeleteFeed(t tx.Tx, namespace string) error {
	err := execAll(t, statement{`DELETE FROM feed WHERE namespace = $1`, []any{namespace}},
		statement{`DELETE FROM feed_heads WHERE namespace = $1`, []any{namespace}})
	if err != nil {
		return fmt.Errorf("delete the feed of namespace %s: %w", namespace, err)
	}
	return nil
}
