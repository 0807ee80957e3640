package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// Median returns the middle result, each figure on its own.
func Median(runs []Result) Result {
	pick := func(of func(Result) float64) float64 {
		values := make([]float64, len(runs))
		for i, r := range runs {
			values[i] = of(r)
		}
		slices.Sort(values)
		n := len(values)
		switch {
		case n == 0:
			return math.NaN()
		case n%2 == 1:
			return values[n/2]
		default:
			return (values[n/2-1] + values[n/2]) / 2
		}
	}
	return Result{
		PerSecond: pick(func(r Result) float64 { return r.PerSecond }),
		P50:       pick(func(r Result) float64 { return r.P50 }),
		P99:       pick(func(r Result) float64 { return r.P99 }),
		ClientCPU: pick(func(r Result) float64 { return r.ClientCPU }),
		ServerCPU: pick(func(r Result) float64 { return r.ServerCPU }),
		Foreign:   pick(func(r Result) float64 { return r.Foreign }),
	}
}

// Comparison is one figure of Telford beside that of a peer. A ratio above 1 says that
// Telford is better.
type Comparison struct {
	Case     string  `json:"case"`
	Metric   string  `json:"metric"`
	Unit     string  `json:"unit"`
	Telford  float64 `json:"telford"`
	Peer     float64 `json:"peer"`
	PeerName string  `json:"peer_name"`
	Ratio    float64 `json:"ratio"`
	// Low and High bound the ratio with a confidence of 95 %, over so many Pairs of
	// measurements; all are 0 where figures were not measured in pairs.
	Low   float64 `json:"low,omitempty"`
	High  float64 `json:"high,omitempty"`
	Pairs int     `json:"pairs,omitempty"`
}

// Compare returns the four figures of a case. what is the noun that is counted: "calls".
func Compare(name, what, peerName string, telford, peer Result) []Comparison {
	row := func(metric, unit string, t, p float64, more bool) Comparison {
		ratio := t / p
		if !more {
			ratio = p / t
		}
		if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
			ratio = 0
		}
		return Comparison{
			Case: name, Metric: metric, Unit: unit, Telford: round(t), Peer: round(p), PeerName: peerName, Ratio: math.Round(ratio*1000) / 1000,
		}
	}
	return []Comparison{
		row("rate", what+"/s", telford.PerSecond, peer.PerSecond, true),
		row("p50", "µs", telford.P50, peer.P50, false),
		row("p99", "µs", telford.P99, peer.P99, false),
		row("cpu", "µs", telford.ClientCPU+telford.ServerCPU, peer.ClientCPU+peer.ServerCPU, false),
	}
}

// round keeps four significant digits.
func round(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// Table prints the comparisons, a line for each case and peer.
func Table(w io.Writer, rows []Comparison) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "case\tpeer\trate\tratio\tp50 µs\tratio\tp99 µs\tratio\tCPU µs\tratio")
	type key struct{ name, peer string }
	var order []key
	cells := map[key][]string{}
	for _, r := range rows {
		k := key{r.Case, r.PeerName}
		if cells[k] == nil {
			order = append(order, k)
		}
		cells[k] = append(cells[k], fmt.Sprintf("%s : %s\t%.2f", number(r.Telford), number(r.Peer), r.Ratio))
	}
	for _, k := range order {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", k.name, k.peer, strings.Join(cells[k], "\t"))
	}
	return tw.Flush()
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// WriteJSON writes the comparisons as a JSON list.
func WriteJSON(path string, rows []Comparison) error {
	if rows == nil {
		rows = []Comparison{}
	}
	body, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(body, '\n'), 0o644); err != nil { //nolint:gosec // a report is for everybody to read
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
