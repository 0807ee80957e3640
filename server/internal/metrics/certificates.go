package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/server/internal/identity"
)

// certificates is the collector of how long certificates last.
type certificates struct {
	status            func() identity.PKIStatus
	now               func() time.Time
	left, phase, next *prometheus.Desc
}

// Certificates returns the families of the certificates and of the rotation of the root;
// status is asked at each scrape. A former root has no days left to watch.
func Certificates(status func() identity.PKIStatus, now func() time.Time) prometheus.Collector {
	name := func(s string) string { return prometheus.BuildFQName(Namespace, "", s) }
	return &certificates{
		status: status, now: now,
		left: prometheus.NewDesc(name("certificate_days_left"), "Days until a certificate ends; negative when it has.", []string{"role", "state"}, nil),
		phase: prometheus.NewDesc(name("root_rotation_phase"),
			"1 for the phase that the rotation of the root is in, 0 for the others.", []string{"phase"}, nil),
		next: prometheus.NewDesc(name("root_rotation_timestamp_seconds"), "When the rotation of the root begins by itself.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *certificates) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.left, c.phase, c.next} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *certificates) Collect(ch chan<- prometheus.Metric) {
	s, now := c.status(), c.now()
	for i := range s.Certificates {
		cert := &s.Certificates[i]
		if !cert.Former() {
			ch <- prometheus.MustNewConstMetric(c.left, prometheus.GaugeValue, cert.NotAfter.Sub(now).Hours()/24, cert.Role, cert.State)
		}
	}
	for _, phase := range identity.Phases() {
		in := 0.0
		if s.Phase == phase {
			in = 1
		}
		ch <- prometheus.MustNewConstMetric(c.phase, prometheus.GaugeValue, in, string(phase))
	}
	ch <- prometheus.MustNewConstMetric(c.next, prometheus.GaugeValue, float64(s.RotateAt.Unix()))
}
