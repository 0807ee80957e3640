package rest

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
)

const (
	// DefaultPollInterval is the pause between two polls of the feed.
	DefaultPollInterval = 10 * time.Second
	// MaxPollInterval keeps a poller that has seen no event yet within the hour that the
	// feed goes back without a marker.
	MaxPollInterval = 30 * time.Minute
)

// PollerOptions set up a Poller; zero means the default.
type PollerOptions struct {
	// Interval is the pause between polls, up to a tenth shorter, so that many pollers
	// spread. After failures it doubles, up to a minute or to the Interval itself.
	// Default: 10 s; at most 30 minutes.
	Interval time.Duration
	// Marker is the id of the last event that was seen, which is not given again. Without
	// it the feed begins an hour ago.
	Marker string
	// SkipPast passes over what is in the feed already and begins with what comes then.
	SkipPast bool
	// Type keeps the events of one type. Default: all.
	Type EventType
	// Limit is the size of a page. Default: the server's.
	Limit int
}

// Poller follows the feed: every event after its marker once, in order, across failures
// of the registry. It is not safe for use by several goroutines at once.
type Poller struct {
	client *Client
	opt    PollerOptions
	last   string // the id of the last event that was given out
	next   string // where the page after the last one begins; "": at the event last
	past   bool   // what was there before is behind us
}

// NewPoller returns a Poller that has asked for nothing yet.
func (c *Client) NewPoller(o PollerOptions) (*Poller, error) {
	if o.Interval == 0 {
		o.Interval = DefaultPollInterval
	}
	if o.Interval < 0 || o.Interval > MaxPollInterval {
		return nil, errs.New(errs.InvalidArgument, "poller: the interval %s is outside 0 to %s", o.Interval, MaxPollInterval)
	}
	if _, err := pageValues("", o.Limit); err != nil {
		return nil, errs.New(errs.InvalidArgument, "poller: %w", err)
	}
	return &Poller{client: c, opt: o, last: o.Marker, past: !o.SkipPast}, nil
}

// Marker returns the id of the last event that was given out, "" before the first. A
// Poller with it as its Marker goes on from there.
func (p *Poller) Marker() string { return p.last }

// Events iterates over the feed until ctx ends, which it ends without an error. A poll
// that failed is yielded with a zero Event, and the iteration goes on after a pause: what
// came in between is not lost. Breaking off and iterating again goes on where it was.
func (p *Poller) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for failures := 0; ; {
			err := p.poll(ctx, func(e Event) bool { return yield(e, nil) })
			switch {
			case err == errStopped: //nolint:errorlint // poll returns it bare
				return
			case ctx.Err() != nil:
				return
			case err != nil:
				failures++
				if !yield(Event{}, err) {
					return
				}
			default:
				failures = 0
			}
			if !pause(ctx, p.client.clock, p.delay(failures)) {
				return
			}
		}
	}
}

// Run calls handle with every event until ctx ends, which is no error, or until handle
// fails. An event that handle failed with counts as given. Failures of polls are logged
// by the client's logger.
func (p *Poller) Run(ctx context.Context, handle func(Event) error) error {
	for e, err := range p.Events(ctx) {
		if err != nil {
			p.client.log.WarnContext(ctx, "could not poll the feed", "error", err)
			continue
		}
		if err := handle(e); err != nil {
			return err
		}
	}
	return nil
}

// delay is the pause after so many failures in a row.
func (p *Poller) delay(failures int) time.Duration {
	d := p.opt.Interval
	most := max(time.Minute, d)
	for range failures {
		if d = min(2*d, most); d == most {
			break
		}
	}
	return d - rand.N(d/10+1) //nolint:gosec // spreads load, guards nothing
}

// errStopped: whoever was given an event wants no more.
var errStopped = errs.New(errs.Canceled, "stopped")

// poll gives out what is new, page by page, to the present end of the feed.
func (p *Poller) poll(ctx context.Context, give func(Event) bool) error {
	for {
		at := p.next
		if at == "" {
			at = p.last
		}
		page, err := p.client.ListEvents(ctx, EventQuery{Marker: at, Type: p.opt.Type, Limit: p.opt.Limit})
		if err != nil {
			return err
		}
		for _, e := range page.Values {
			if e.ID == "" {
				return errs.New(errs.Internal, "list events: an event has no id: the feed cannot be followed")
			}
			if e.ID == p.last {
				continue // markers are inclusive
			}
			p.last, p.next = e.ID, ""
			if p.past && !give(e) {
				return errStopped
			}
		}
		next := page.Metadata.next()
		if next == "" {
			p.next, p.past = "", true
			return nil
		}
		if next == at {
			return errs.New(errs.Internal, "list events: the feed does not advance: the page at marker %q names itself as the next", at)
		}
		p.next = next
	}
}

// pause waits and reports whether ctx is still there.
func pause(ctx context.Context, clk clock.Clock, d time.Duration) bool {
	t := clk.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
