package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/server/internal/idempotency"
)

// keyed reads the counters of calls with idempotency keys, all families at once.
type keyed struct {
	stats    func() idempotency.Stats
	families []keyedFamily
}

type keyedFamily struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(*idempotency.Stats) float64
}

// Idempotency returns the families of calls with idempotency keys.
func Idempotency(stats func() idempotency.Stats) prometheus.Collector {
	c := &keyed{stats: stats}
	add := func(kind prometheus.ValueType, name, help string, get func(*idempotency.Stats) float64) {
		desc := prometheus.NewDesc(prometheus.BuildFQName(Namespace, "idempotency", name), help, nil, nil)
		c.families = append(c.families, keyedFamily{desc, kind, get})
	}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	add(gauge, "records", "Idempotency keys that are kept, as this node has counted.", func(s *idempotency.Stats) float64 { return float64(s.Records) })
	add(gauge, "running", "Calls with an idempotency key that run.", func(s *idempotency.Stats) float64 { return float64(s.Running) })
	add(gauge, "waiting", "Calls that wait for another one with their idempotency key.", func(s *idempotency.Stats) float64 { return float64(s.Waiting) })
	add(counter, "claims_total", "Calls with an idempotency key that were given to an instance.", func(s *idempotency.Stats) float64 { return float64(s.Claims) })
	add(counter, "replays_total", "Calls that got the answer of another one with their idempotency key.", func(s *idempotency.Stats) float64 { return float64(s.Replays) })
	add(counter, "conflicts_total", "Calls whose idempotency key was used for another request.", func(s *idempotency.Stats) float64 { return float64(s.Conflicts) })
	add(counter, "unknown_total", "Calls with an idempotency key of which it is unknown what became.", func(s *idempotency.Stats) float64 { return float64(s.Unknown) })
	add(counter, "released_total", "Calls with an idempotency key that nobody began.", func(s *idempotency.Stats) float64 { return float64(s.Released) })
	add(counter, "refused_total", "Calls with an idempotency key that were too many, or came while the node stopped.", func(s *idempotency.Stats) float64 { return float64(s.Refused) })
	add(counter, "expired_total", "Idempotency keys that were deleted at the end of their lifetime.", func(s *idempotency.Stats) float64 { return float64(s.Expired) })
	return c
}

// Describe implements prometheus.Collector.
func (c *keyed) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.families {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *keyed) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	for _, f := range c.families {
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.get(&s))
	}
}
