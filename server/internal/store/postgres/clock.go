package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"telford.dev/telford/internal/clock"
)

const (
	measureEvery = time.Minute
	// largeJump is a change of the distance between the clocks that somebody should know
	// of: one of the two was set.
	largeJump = time.Second
)

// corrected is the clock of this machine moved by its distance from the server's, so
// that the instants which several nodes store can be compared. A change of the
// distance moves it at once, also back: whoever renews a lease keeps the later of the
// old and the new end.
type corrected struct {
	clock.Clock
	distance atomic.Int64 // server minus machine, in nanoseconds
}

// Now implements clock.Clock.
func (c *corrected) Now() time.Time {
	return c.Clock.Now().Add(time.Duration(c.distance.Load()))
}

// Clock is the time that instants in this database are taken from.
func (db *DB) Clock() clock.Clock {
	if db.clock != nil {
		return db.clock
	}
	return db.cfg.Clock
}

// measure asks the server for its time. The answer is as exact as half of the round
// trip; a distance that lies within is no distance.
func (db *DB) measure(ctx context.Context, c *pgx.Conn) error {
	var micros int64
	start := db.clock.Clock.Now()
	err := c.QueryRow(ctx, "select (extract(epoch from clock_timestamp()) * 1000000)::bigint", pgx.QueryExecModeExec).Scan(&micros)
	if err != nil {
		return translate(err)
	}
	half := db.clock.Clock.Now().Sub(start) / 2
	db.adopt(time.UnixMicro(micros).Sub(start.Add(half)), half)
	return nil
}

// adopt takes a measured distance that is exact to within margin.
func (db *DB) adopt(distance, margin time.Duration) {
	old := time.Duration(db.clock.distance.Load())
	change := (distance - old).Abs()
	if change <= margin+time.Millisecond {
		return
	}
	db.clock.distance.Store(int64(distance))
	if change > largeJump {
		db.cfg.Log.Warn("the clocks of this machine and of the database server moved apart",
			"server_minus_machine", distance, "before", old)
	}
}

// measureLoop measures again and again until the database closes.
func (db *DB) measureLoop() {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		select {
		case <-db.closing:
			return
		case <-tick.C:
		}
		if err := db.measureOnce(); err != nil {
			db.cfg.Log.Warn("the clock of the database server could not be read", "error", err)
		}
	}
}

func (db *DB) measureOnce() error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Release()
	return db.measure(ctx, conn.Conn())
}
