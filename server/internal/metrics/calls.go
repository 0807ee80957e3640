package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/router"
)

// calls is the collector of what passed through the router.
type calls struct {
	stats func() []router.Stats

	ended, streamsEnded, inFlight, streams, duration, repicks, transcoded, bytes *prometheus.Desc
}

// Calls returns the families of the router's counters; stats is asked at each scrape.
// Calls that reached no service have empty labels namespace and service.
func Calls(stats func() []router.Stats) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(Namespace, "", name), help, append([]string{"namespace", "service"}, labels...), nil)
	}
	return &calls{
		stats:        stats,
		ended:        desc("calls_total", "Unary calls through the runtime that have ended, by code.", "code"),
		streamsEnded: desc("streams_total", "Streaming calls through the runtime that have ended, by code.", "code"),
		inFlight:     desc("calls_in_flight", "Unary calls through the runtime that are running."),
		streams:      desc("streams_in_flight", "Streaming calls through the runtime that are running."),
		duration:     desc("call_duration_seconds", "How long unary calls took that reached an instance."),
		repicks:      desc("call_repicks_total", "Calls that an instance refused before they began and that went to another."),
		transcoded:   desc("call_transcoded_total", "Bodies turned from one content type into another."),
		bytes:        desc("call_bytes_total", "Bytes of bodies, towards the callee (in) and back (out).", "direction"),
	}
}

// Describe implements prometheus.Collector.
func (c *calls) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.ended, c.streamsEnded, c.inFlight, c.streams, c.duration, c.repicks, c.transcoded, c.bytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *calls) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.stats() {
		count := func(d *prometheus.Desc, n uint64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append([]string{s.Namespace, s.Service}, labels...)...)
		}
		gauge := func(d *prometheus.Desc, n int64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), s.Namespace, s.Service)
		}
		for code, n := range s.Calls {
			count(c.ended, n, codeLabel(code))
		}
		for code, n := range s.StreamsEnded {
			count(c.streamsEnded, n, codeLabel(code))
		}
		gauge(c.inFlight, s.InFlight)
		gauge(c.streams, s.Streams)
		count(c.repicks, s.Repicks)
		count(c.transcoded, s.Transcoded)
		count(c.bytes, s.BytesIn, "in")
		count(c.bytes, s.BytesOut, "out")
		buckets, total := cumulative(s.Latency)
		ch <- prometheus.MustNewConstHistogram(c.duration, total, s.Latency.Sum.Seconds(), buckets, s.Namespace, s.Service)
	}
}

// codeLabel is the label of a code; success is "ok".
func codeLabel(c errs.Code) string {
	if c == "" {
		return "ok"
	}
	return string(c)
}

// cumulative turns the counts of separate buckets into those that Prometheus wants.
func cumulative(h router.Histogram) (buckets map[float64]uint64, total uint64) {
	buckets = make(map[float64]uint64, len(h.Bounds))
	for i, n := range h.Counts {
		total += n
		if i < len(h.Bounds) {
			buckets[h.Bounds[i].Seconds()] = total
		}
	}
	return buckets, total
}
