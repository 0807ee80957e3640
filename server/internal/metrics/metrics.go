// Package metrics owns the metric families of the runtime and the registry object that
// serves them; nothing of it is global. It asks the parts when it is scraped and counts
// nothing itself, so that measuring costs nothing between scrapes. It starts no
// goroutines.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Namespace begins the name of every family of Telford's own.
const Namespace = "telford"

// Metrics is the registry object of one runtime.
type Metrics struct {
	registry *prometheus.Registry
}

// New returns a registry with the families of the Go runtime, of the process and of
// the build.
func New(version, commit, goVersion string) (*Metrics, error) {
	m := &Metrics{registry: prometheus.NewRegistry()}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: Namespace, Name: "build_info", Help: "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "go_version": goVersion},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{
		build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := m.registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Registerer is where parts register families of their own.
func (m *Metrics) Registerer() prometheus.Registerer { return m.registry }

// Register adds families; an error means that a name is taken.
func (m *Metrics) Register(cs ...prometheus.Collector) error {
	for _, c := range cs {
		if err := m.registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Handler serves the families in the formats of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
