package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/server/internal/alarm"
)

// alarms is the collector of the alarms that are up.
type alarms struct {
	list      func() []alarm.Alarm
	up, since *prometheus.Desc
}

// Alarms returns the families about the alarms that are up; list is asked at each
// scrape.
func Alarms(list func() []alarm.Alarm) prometheus.Collector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(Namespace, "", name), help, []string{"code", "severity"}, nil)
	}
	return &alarms{
		list:  list,
		up:    desc("alarm", "1 for each alarm that is up: what somebody has to see to."),
		since: desc("alarm_since_seconds", "When the alarm was raised."),
	}
}

// Describe implements prometheus.Collector.
func (c *alarms) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.up
	ch <- c.since
}

// Collect implements prometheus.Collector.
func (c *alarms) Collect(ch chan<- prometheus.Metric) {
	for _, a := range c.list() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, a.Code, string(a.Severity))
		}
		gauge(c.up, 1)
		gauge(c.since, float64(a.Since.UnixMicro())/1e6)
	}
}
