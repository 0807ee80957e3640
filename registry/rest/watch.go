package rest

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// WatchOptions set up a watch of the configuration; zero means the default.
type WatchOptions struct {
	// Namespace keeps the values below it and the value of its very name. Default: all.
	Namespace string
	// Interval is the pause between two polls of the feed. Default: 10 s.
	Interval time.Duration
}

// Configuration is the state of the watched values after a poll.
type Configuration struct {
	// Values by id. The map is the caller's.
	Values map[string]string
	// Changed are the differences to the state before, sorted by id; in the first state
	// every value is one.
	Changed []ConfigurationChange
}

// WatchConfiguration iterates over the states of the configuration: the present one,
// then one after each poll of the feed that found a change, until ctx ends, which it ends
// without an error. Several changes of one value between two polls are one; the last is
// never missed. A poll that failed is yielded with a zero Configuration, and the
// iteration goes on.
func (c *Client) WatchConfiguration(ctx context.Context, o WatchOptions) iter.Seq2[Configuration, error] {
	return func(yield func(Configuration, error) bool) {
		pace, err := c.NewPoller(PollerOptions{Interval: o.Interval})
		if err != nil {
			yield(Configuration{}, err)
			return
		}
		w := &watch{client: c, namespace: strings.Trim(o.Namespace, "/")}
		for failures := 0; ; {
			changed, news, err := w.step(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				failures++
				if !yield(Configuration{}, err) {
					return
				}
			default:
				failures = 0
				if news && !yield(Configuration{Values: maps.Clone(w.values), Changed: changed}, nil) {
					return
				}
			}
			if !pause(ctx, c.clock, pace.delay(failures)) {
				return
			}
		}
	}
}

// watch is what one iteration knows.
type watch struct {
	client    *Client
	namespace string
	values    map[string]string // nil before the first state
	poller    *Poller           // nil when the state has to be read anew
}

// step brings the values up to date and reports whether there is something to tell.
func (w *watch) step(ctx context.Context) (changed []ConfigurationChange, news bool, err error) {
	if w.poller == nil {
		return w.read(ctx)
	}
	latest := make(map[string]*string)
	unread := false
	err = w.poller.poll(ctx, func(e Event) bool {
		if e.Type != ConfigurationUpdate && e.Type != ConfigurationRemove {
			return true
		}
		change, bad := e.Configuration()
		if bad != nil {
			w.client.log.WarnContext(ctx, "a change of the configuration cannot be read; all values are", "error", bad)
			unread = true
		} else if w.covers(change.ID) {
			latest[change.ID] = change.New
		}
		return true
	})
	// What was read before a failure is behind the marker of the poller: it counts.
	changed = w.apply(latest)
	if errors.Is(err, ErrBadRequest) {
		// The registry does not know the marker any more: it was set up anew.
		unread, err = true, nil
	}
	if unread {
		w.poller = nil // the next step reads the whole
	}
	if err != nil && len(changed) > 0 {
		// The poller is asked again after the pause and fails again or catches up.
		w.client.log.WarnContext(ctx, "could not poll the feed to its end", "error", err)
		err = nil
	}
	return changed, len(changed) > 0, err
}

// read reads all values. The end of the feed is taken first, so that what changes during
// the reading is found by the next step.
func (w *watch) read(ctx context.Context) ([]ConfigurationChange, bool, error) {
	poller, err := w.client.NewPoller(PollerOptions{SkipPast: true, Limit: MaxLimit})
	if err != nil {
		return nil, false, err
	}
	if err := poller.poll(ctx, func(Event) bool { return true }); err != nil {
		return nil, false, err
	}
	latest := make(map[string]*string)
	for id := range w.values {
		latest[id] = nil
	}
	for v, err := range w.client.EachConfiguration(ctx, ConfigurationQuery{Namespace: w.namespace}) {
		if err != nil {
			return nil, false, err
		}
		if w.covers(v.ID) {
			latest[v.ID] = &v.Value
		}
	}
	first := w.values == nil
	if first {
		w.values = make(map[string]string)
	}
	w.poller = poller
	changed := w.apply(latest)
	return changed, first || len(changed) > 0, nil
}

// apply takes over the latest values and returns what differs.
func (w *watch) apply(latest map[string]*string) []ConfigurationChange {
	var changed []ConfigurationChange
	for id, value := range latest {
		change := ConfigurationChange{ID: id, New: value}
		old, had := w.values[id]
		if had {
			change.Old = &old
		}
		switch {
		case value != nil && (!had || old != *value):
			w.values[id] = *value
		case value == nil && had:
			delete(w.values, id)
		default:
			continue
		}
		changed = append(changed, change)
	}
	slices.SortFunc(changed, func(a, b ConfigurationChange) int { return cmp.Compare(a.ID, b.ID) })
	return changed
}

// covers reports whether an id is watched.
func (w *watch) covers(id string) bool {
	if w.namespace == "" {
		return true
	}
	rest, ok := strings.CutPrefix(strings.TrimPrefix(id, "/"), w.namespace)
	return ok && strings.HasPrefix(id, "/") && (rest == "" || rest[0] == '/')
}
