package store

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/server/internal/store/engine"
)

// metrics are the families of the store: two histograms fed by the engine, and the
// counters that it keeps.
type metrics struct {
	commit prometheus.Histogram
	group  prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "telford_store_commit_seconds", Help: "How long a commit took, the sync of the disk included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "telford_store_commit_writes", Help: "How many transactions one commit carried.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
	}
}

func (m *metrics) observe(d time.Duration, writes int) {
	m.commit.Observe(d.Seconds())
	m.group.Observe(float64(writes))
}

// register adds the families, read from s when they are collected.
func (m *metrics) register(r prometheus.Registerer, s *Store) (unregister func(), err error) {
	all := []prometheus.Collector{m.commit, m.group}
	counter := func(name, help string, get func(engine.Stats) int64) {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "telford_store_" + name, Help: help},
			func() float64 { return float64(get(s.Stats())) }))
	}
	gauge := func(name, help string, get func(engine.Stats) int64) {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "telford_store_" + name, Help: help},
			func() float64 { return float64(get(s.Stats())) }))
	}
	counter("writes_total", "Transactions committed.", func(v engine.Stats) int64 { return v.Writes })
	counter("writes_failed_total", "Transactions rolled back.", func(v engine.Stats) int64 { return v.Failed })
	counter("writes_dropped_total", "Writes whose caller left before they began.", func(v engine.Stats) int64 { return v.Dropped })
	counter("retries_total", "Transactions run again after a conflict or a lost connection.", func(v engine.Stats) int64 { return v.Retries })
	counter("unknown_outcomes_total", "Commits whose outcome is unknown.", func(v engine.Stats) int64 { return v.Unknown })
	counter("checkpoints_total", "Checkpoints beside the writer.", func(v engine.Stats) int64 { return v.Checkpoints })
	counter("log_restarts_total", "Checkpoints that the writer had to run itself.", func(v engine.Stats) int64 { return v.Restarts })
	counter("slow_reads_total", "Read transactions over the limit.", func(v engine.Stats) int64 { return v.SlowReads })
	gauge("queued_writes", "Writes that wait for the writer.", func(v engine.Stats) int64 { return v.Queued })
	gauge("log_bytes", "Length of the write-ahead log.", func(v engine.Stats) int64 { return v.LogBytes })
	for i, c := range all {
		if err := r.Register(c); err != nil {
			for _, done := range all[:i] {
				r.Unregister(done)
			}
			return nil, fmt.Errorf("register the metrics of the store: %w", err)
		}
	}
	return func() {
		for _, c := range all {
			r.Unregister(c)
		}
	}, nil
}
