package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"telford.dev/telford/server/internal/tx"
)

// retry says whether a failed transaction may be run again. Nothing of it was kept.
type retry struct {
	max  int           // runs in all; 0: once
	base time.Duration // the first wait, before jitter
}

var (
	conflict = retry{max: 10, base: 2 * time.Millisecond}
	lostLink = retry{max: 5, base: 50 * time.Millisecond}
)

// unbegun is the retry for a transaction that could not begin. Where a connection turns
// out to be lost the others of its age most likely are, as after a restart of the server:
// they are given up together, or each would use up a run.
func (db *DB) unbegun(err error) retry {
	if errors.Is(err, tx.ErrUnavailable) {
		db.pool.Reset()
		return lostLink
	}
	return retry{}
}

// after waits before the next run, with full jitter; false: no more runs.
func (r retry) after(ctx context.Context, attempt int, closing <-chan struct{}) bool {
	if attempt+1 >= r.max || ctx.Err() != nil {
		return false
	}
	limit := min(r.base<<attempt, time.Second)
	timer := time.NewTimer(rand.N(limit) + time.Microsecond) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-closing:
	}
	return false
}

// mayRetry judges an error of a statement before COMMIT.
func (db *DB) mayRetry(err error, connectionLost bool) retry {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "40001", "40P01": // serialization_failure, deadlock_detected
			return conflict
		case "26000", "42P05": // a prepared statement is not there, or is already
			if !db.describe.Swap(true) {
				db.cfg.Log.Info("a pooler changes sessions; statements are no longer prepared by name")
			}
			return conflict
		case "25006": // the server has become a standby: the next connection looks for another
			db.pool.Reset()
			return retry{}
		}
	}
	if connectionLost {
		return lostLink
	}
	return retry{}
}

// rolledBack says whether a failed COMMIT is known to have had no effect. Only the
// server's word counts: the driver calls errors "safe to retry" that also follow a
// COMMIT which was sent and not answered.
func rolledBack(err error) (undone bool, again retry) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch {
		case pg.SeverityUnlocalized == "FATAL" || pg.SeverityUnlocalized == "PANIC":
			return false, retry{} // the session ended; the commit record may have been written
		case pg.Code == "40001" || pg.Code == "40P01":
			return true, conflict
		}
		return true, retry{}
	}
	return errors.Is(err, errCommitRollback), retry{}
}
