package rules

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// maxReported bounds what one report adds to one count, so that no reporter makes the
// numbers overflow.
const maxReported = 1 << 32

// ReportShadow adds denials that instances of a namespace have counted themselves. Their
// Namespace, First and Last are not looked at.
func (r *Rules) ReportShadow(namespace string, denials ...ShadowDenial) {
	for _, d := range denials {
		if d.Count > 0 {
			d.Namespace, d.Count = namespace, min(d.Count, maxReported)
			r.count(r.space(namespace), d)
		}
	}
}

// count counts one denial, now.
func (r *Rules) count(sp *space, d ShadowDenial) {
	now := r.now()
	d.First, d.Last = now, now
	sp.tally.total.Add(uint64(d.Count))
	if sp.tally.add(d) {
		r.flush.wake()
	}
}

// Shadow returns what the rules of a namespace that are only counted would have denied,
// ordered by service, action, caller, callee and target.
func (r *Rules) Shadow(ctx context.Context, namespace string) ([]ShadowDenial, error) {
	// What is on its way to the store is neither there nor here.
	r.flush.mu.Lock()
	defer r.flush.mu.Unlock()
	var list []ShadowDenial
	err := r.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		list, err = r.cfg.Storage.ShadowDenials(t, namespace)
		return err
	})
	if err != nil {
		return nil, storageError("list shadow denials", err)
	}
	if sp := r.find(namespace); sp != nil {
		list = sp.tally.merge(list)
	}
	return list, nil
}

// ClearShadow forgets what was counted in a namespace and returns how many denials those
// were.
func (r *Rules) ClearShadow(ctx context.Context, namespace string) (int, error) {
	const operation = "clear shadow denials"
	if err := r.flush.run(ctx); err != nil {
		return 0, storageError(operation, err)
	}
	r.flush.mu.Lock()
	defer r.flush.mu.Unlock()
	removed := 0
	err := r.cfg.DB.Write(ctx, func(t tx.Tx) (err error) {
		if removed, err = r.cfg.Storage.ClearShadow(t, namespace); err != nil {
			return err
		}
		t.AfterCommit(func() {
			if sp := r.find(namespace); sp != nil {
				sp.tally.reset()
			}
		})
		return nil
	})
	if err != nil {
		return 0, storageError(operation, err)
	}
	return removed, nil
}

// flusher writes what was counted, some time after the first of it.
type flusher struct {
	rules *Rules
	some  chan struct{} // has a token when there is something to write
	// mu is held while counts are on their way to the store.
	mu sync.Mutex
}

func (f *flusher) init(r *Rules) { f.rules, f.some = r, make(chan struct{}, 1) }

func (f *flusher) wake() {
	select {
	case f.some <- struct{}{}:
	default:
	}
}

// loop writes until ctx ends.
func (f *flusher) loop(ctx context.Context) {
	r := f.rules
	for {
		select {
		case <-f.some:
		case <-ctx.Done():
			return
		}
		// Not all nodes write at once.
		timer := r.cfg.Clock.NewTimer(r.cfg.Flush + rand.N(r.cfg.Flush/5+1)) //nolint:gosec // no secret
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if err := f.run(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("shadow denials are not written; they are kept and tried again", "error", err)
			f.wake()
		}
	}
}

// flushTimeout bounds one writing.
const flushTimeout = 10 * time.Second

// run writes what was counted up to now. What cannot be written is counted again.
func (f *flusher) run(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rules
	var all []ShadowDenial
	for _, sp := range *r.spaces.Load() {
		all = append(all, sp.tally.take()...)
	}
	if len(all) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	err := r.cfg.DB.Write(ctx, func(t tx.Tx) error {
		live, err := r.live(t, all)
		if err != nil {
			return err
		}
		return r.cfg.Storage.AddShadow(t, live)
	})
	if err != nil {
		for i := range all {
			r.space(all[i].Namespace).tally.add(all[i])
		}
	}
	return err
}

// live leaves out the denials of namespaces that are gone. Those of one namespace stand
// together.
func (r *Rules) live(t tx.Tx, all []ShadowDenial) ([]ShadowDenial, error) {
	var live []ShadowDenial
	gone := false
	for i := range all {
		if i == 0 || all[i].Namespace != all[i-1].Namespace {
			err := r.hold(t, all[i].Namespace)
			if gone = errs.CodeOf(err) == errs.NotFound; err != nil && !gone {
				return nil, err
			}
		}
		if !gone {
			live = append(live, all[i])
		}
	}
	return live, nil
}
