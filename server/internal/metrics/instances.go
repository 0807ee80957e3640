package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/internal/catalog"
)

// instances is the collector of what is registered.
type instances struct {
	list func() []*catalog.Instance
	desc *prometheus.Desc
}

// Instances returns the family that counts registered instances; list is asked at each
// scrape.
func Instances(list func() []*catalog.Instance) prometheus.Collector {
	return &instances{list: list, desc: prometheus.NewDesc(
		prometheus.BuildFQName(Namespace, "", "instances"), "Registered instances.",
		[]string{"namespace", "service", "status", "reachable", "draining"}, nil,
	)}
}

// Describe implements prometheus.Collector.
func (c *instances) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *instances) Collect(ch chan<- prometheus.Metric) {
	type group struct {
		namespace, service string
		status             catalog.Status
		reachable, drain   bool
	}
	counts := make(map[group]int)
	for _, i := range c.list() {
		counts[group{i.Namespace, i.Declaration.Service, i.Declaration.Status, i.Reachable, i.Draining}]++
	}
	for g, n := range counts {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n),
			g.namespace, g.service, string(g.status), strconv.FormatBool(g.reachable), strconv.FormatBool(g.drain))
	}
}
