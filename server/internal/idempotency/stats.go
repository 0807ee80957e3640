package idempotency

import "sync/atomic"

type counters struct {
	records                                                         atomic.Int64
	claims, replays, conflicts, unknown, released, refused, expired atomic.Uint64
}

// Stats are counts since New, but for the gauges.
type Stats struct {
	// Records is how many keys are kept, as this process has counted: those of others that
	// share the store since Start are not among them.
	Records int64
	// Running and Waiting are the calls that run, and those that wait for another one.
	Running, Waiting int
	// Claims are calls that ran, Replays those that got the answer of another one.
	Claims, Replays uint64
	// Conflicts are calls that were refused because their key was used for another body.
	Conflicts uint64
	// Unknown are calls whose outcome is unknown, Released those that nobody began.
	Unknown, Released uint64
	// Refused are calls that found too many running or waiting, or the runtime stopping.
	Refused uint64
	// Expired are the records deleted at the end of their lifetime.
	Expired uint64
}

// Stats returns the counters. They are read one by one, not at one moment.
func (k *Keys) Stats() Stats {
	k.mu.Lock()
	running, waiting := k.running, k.waiting
	k.mu.Unlock()
	s := &k.stats
	return Stats{
		Records: s.records.Load(), Running: running, Waiting: waiting,
		Claims: s.claims.Load(), Replays: s.replays.Load(), Conflicts: s.conflicts.Load(),
		Unknown: s.unknown.Load(), Released: s.released.Load(), Refused: s.refused.Load(), Expired: s.expired.Load(),
	}
}
