package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/server/internal/rules"
)

// laid is the collector of what operators have laid down and what it denied.
type laid struct {
	stats func() []rules.Stats

	denials, shadow, rules *prometheus.Desc
}

// Rules returns the families of the rules; stats is asked at each scrape.
func Rules(stats func() []rules.Stats) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(Namespace, "", name), help, append([]string{"namespace"}, labels...), nil)
	}
	return &laid{
		stats:   stats,
		denials: desc("policy_denials_total", "Calls that the policy has denied, here or as instances report, by the side whose rule it was.", "side"),
		shadow:  desc("policy_shadow_denials_total", "Calls that were served and that rules which are only counted would have denied."),
		rules:   desc("rules", "Rules laid down by operators, by kind; of capabilities those that are off.", "kind"),
	}
}

// Describe implements prometheus.Collector.
func (c *laid) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.denials, c.shadow, c.rules} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *laid) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.stats() {
		for side, n := range s.Denied {
			ch <- prometheus.MustNewConstMetric(c.denials, prometheus.CounterValue, float64(n), s.Namespace, side)
		}
		ch <- prometheus.MustNewConstMetric(c.shadow, prometheus.CounterValue, float64(s.ShadowDenied), s.Namespace)
		for kind, n := range s.Rules {
			ch <- prometheus.MustNewConstMetric(c.rules, prometheus.GaugeValue, float64(n), s.Namespace, kind)
		}
	}
}
