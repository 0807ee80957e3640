package config

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"telford.dev/telford/server/internal/tx"
)

// Diff is what lies between two revisions of a value.
type Diff struct {
	From, To Change
	// Text has a line for each that is only in From, with "-" before it, or only in To,
	// with "+", and for up to three around them that are in both, with a space; "…" stands
	// for more of those. JSON is laid out first. Empty: there is no difference.
	Text string
}

// Diff compares two revisions of a value. to 0: its last one; from 0: the one before to,
// or none, where to is the first that is kept. not_found: history has no such revision.
func (v *Values) Diff(ctx context.Context, namespace, id string, from, to int64) (Diff, error) {
	const operation = "compare two revisions"
	if err := CheckID(id); err != nil {
		return Diff{}, storageError(operation, err)
	}
	var d Diff
	err := v.cfg.DB.Read(ctx, func(t tx.Tx) error {
		last, err := v.revision(t, namespace, id, to)
		if err != nil {
			return err
		}
		d.To = last.Change
		if from > 0 {
			first, err := v.revision(t, namespace, id, from)
			if err == nil {
				d.From = first.Change
			}
			return err
		}
		rows, _, err := v.cfg.Storage.ConfigHistory(t, &Range{Namespace: namespace, Limit: 1, MaxBytes: v.cfg.MaxPage}, id, last.Revision)
		if err != nil {
			return err
		}
		d.From = Change{Value: Value{Namespace: namespace, ID: id}, Removed: true}
		if len(rows) > 0 {
			d.From = rows[0].Change
		}
		return nil
	})
	if err != nil {
		return Diff{}, storageError(operation, err)
	}
	d.Text = diffLines(lines(&d.From), lines(&d.To))
	return d, nil
}

// revision is one of an id; 0: its last.
func (v *Values) revision(t tx.Tx, namespace, id string, revision int64) (row *Row, err error) {
	if revision > 0 {
		row, err = v.cfg.Storage.ConfigRevision(t, namespace, id, revision)
		if errors.Is(err, tx.ErrNotFound) {
			err = noRevision(namespace, id, revision)
		}
		return row, err
	}
	row, err = v.cfg.Storage.LastConfigRevision(t, namespace, id)
	if errors.Is(err, tx.ErrNotFound) {
		err = unknown(namespace, id)
	}
	return row, err
}

// lines are those of a value; of none, none.
func lines(c *Change) []string {
	text := c.Value.Value
	if c.JSON {
		var b bytes.Buffer
		if json.Indent(&b, []byte(text), "", "  ") == nil {
			text = b.String()
		}
	}
	if c.Removed || text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

const (
	around   = 3         // lines of both sides that are shown about a difference
	maxTable = 4_000_000 // of pairs of lines that are compared; beyond, all between is another
)

// diffLines lays out the difference of two texts.
func diffLines(a, b []string) string {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	if head == len(a) && head == len(b) {
		return ""
	}
	var d differ
	d.both(a[:head])
	d.between(a[head:len(a)-tail], b[head:len(b)-tail])
	d.both(a[len(a)-tail:])
	return d.text(false)
}

// differ collects lines; same are those of both sides that wait to be shown or left out.
type differ struct {
	out  strings.Builder
	same []string
}

func (d *differ) both(lines []string) { d.same = append(d.same, lines...) }

func (d *differ) line(sign byte, line string) {
	d.text(true)
	d.out.WriteByte(sign)
	d.out.WriteString(line)
	d.out.WriteByte('\n')
}

// text writes what waits, of which those about a difference are shown. next: another
// difference follows.
func (d *differ) text(next bool) string {
	same := d.same
	d.same = nil
	show := func(lines []string) {
		for _, line := range lines {
			d.out.WriteString(" " + line + "\n")
		}
	}
	before, after := around, around
	if d.out.Len() == 0 {
		before = 0
	}
	if !next {
		after = 0
	}
	if len(same) <= before+after {
		show(same)
		return d.out.String()
	}
	show(same[:before])
	d.out.WriteString("…\n")
	show(same[len(same)-after:])
	return d.out.String()
}

// between finds the longest sequence of lines that both have.
func (d *differ) between(a, b []string) {
	if len(a)*len(b) > maxTable {
		for _, line := range a {
			d.line('-', line)
		}
		for _, line := range b {
			d.line('+', line)
		}
		return
	}
	width := len(b) + 1
	common := make([]int32, (len(a)+1)*width) // of a[i:] and b[j:]
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i*width+j] = common[(i+1)*width+j+1] + 1
			} else {
				common[i*width+j] = max(common[(i+1)*width+j], common[i*width+j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			d.both(a[i : i+1])
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[(i+1)*width+j] >= common[i*width+j+1]):
			d.line('-', a[i])
			i++
		default:
			d.line('+', b[j])
			j++
		}
	}
}
