package router

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/errs"
)

const buckets = 17 + 1

// bounds are the upper bounds of the buckets of the latency histogram but the last.
var bounds = [buckets - 1]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// meter counts what passes through one service, without locks.
type meter struct {
	inFlight, streams   atomic.Int64
	repicks, transcoded atomic.Uint64
	ended, streamsEnded outcomes
	latency             [buckets]atomic.Uint64
	latencySum          atomic.Int64 // nanoseconds
	bytesIn, bytesOut   atomic.Uint64
}

// outcomes counts ends by code; a code that is not known counts as internal.
type outcomes struct {
	ok     atomic.Uint64
	failed [32]atomic.Uint64 // as codeNumbers says
}

// codeNumbers gives each code its place among the counters.
var codeNumbers = func() map[errs.Code]int {
	m := make(map[errs.Code]int)
	for i, c := range errs.Codes() {
		m[c] = i
	}
	return m
}()

func (o *outcomes) count(err *errs.Error) {
	if err == nil {
		o.ok.Add(1)
		return
	}
	n, ok := codeNumbers[err.Code]
	if !ok {
		n = codeNumbers[errs.Internal]
	}
	o.failed[n].Add(1)
}

func (o *outcomes) snapshot() map[errs.Code]uint64 {
	m := make(map[errs.Code]uint64)
	if n := o.ok.Load(); n > 0 {
		m[""] = n
	}
	for i, c := range errs.Codes() {
		if n := o.failed[i].Load(); n > 0 {
			m[c] = n
		}
	}
	return m
}

func (m *meter) observe(d time.Duration) {
	i := 0
	for i < buckets-1 && d > bounds[i] {
		i++
	}
	m.latency[i].Add(1)
	m.latencySum.Add(int64(d))
}

// Stats is what has passed through the router to one service since it started.
type Stats struct {
	// Namespace and Service are empty for calls that reached no service.
	Namespace, Service string
	// InFlight and Streams are the unary and the streaming calls that run now.
	InFlight, Streams int64
	// Calls and StreamsEnded count ends by code, "" being success.
	Calls, StreamsEnded map[errs.Code]uint64
	// Repicks counts refusals before the start that were given to another instance.
	Repicks uint64
	// Transcoded counts bodies turned from one content type into another.
	Transcoded uint64
	// BytesIn and BytesOut are the bodies of requests and answers.
	BytesIn, BytesOut uint64
	// Latency is that of unary calls that reached an instance.
	Latency Histogram
}

// Histogram counts durations in buckets.
type Histogram struct {
	// Bounds are the upper bounds of the buckets, without the last, which has none.
	Bounds []time.Duration
	// Counts has one more element than Bounds.
	Counts []uint64
	Sum    time.Duration
}

// Stats returns the counters of every service that was ever called, ordered by
// namespace and name. The counters are read one by one, not at one moment.
func (r *Router) Stats() []Stats {
	all := []Stats{r.nowhere.stats(serviceKey{})}
	for key, s := range *r.services.Load() {
		all = append(all, s.meter.stats(key))
	}
	slices.SortFunc(all, func(a, b Stats) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Service, b.Service)
	})
	return all
}

// InFlight is the number of calls and streams that run now, over all services.
func (r *Router) InFlight() int {
	n := r.nowhere.inFlight.Load() + r.nowhere.streams.Load()
	for _, s := range *r.services.Load() {
		n += s.meter.inFlight.Load() + s.meter.streams.Load()
	}
	return int(n)
}

func (m *meter) stats(key serviceKey) Stats {
	s := Stats{
		Namespace: key.namespace, Service: key.name,
		InFlight: m.inFlight.Load(), Streams: m.streams.Load(),
		Calls: m.ended.snapshot(), StreamsEnded: m.streamsEnded.snapshot(),
		Repicks: m.repicks.Load(), Transcoded: m.transcoded.Load(),
		BytesIn: m.bytesIn.Load(), BytesOut: m.bytesOut.Load(),
		Latency: Histogram{Bounds: slices.Clone(bounds[:]), Sum: time.Duration(m.latencySum.Load())},
	}
	for i := range m.latency {
		s.Latency.Counts = append(s.Latency.Counts, m.latency[i].Load())
	}
	return s
}
