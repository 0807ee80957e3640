package metrics

import "github.com/prometheus/client_golang/prometheus"

// Gauge returns a family of one value that is asked for at each scrape.
func Gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: Namespace, Name: name, Help: help}, value)
}

// Counter returns a family of one count that is asked for at each scrape.
func Counter(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: Namespace, Name: name, Help: help}, value)
}
