package catalog

// Parts puts an update that came in parts together again, so that whoever applies it
// never sees half a snapshot. The zero value is ready. It is for one watch and one
// goroutine.
type Parts struct{ pending *Update }

// Add takes the next update of the watch and returns the whole one that it completes,
// nil while more is to come. A snapshot begins anew, whatever was pending.
func (p *Parts) Add(u *Update) *Update {
	whole := p.pending
	if whole == nil || u.Snapshot {
		whole = &Update{Snapshot: u.Snapshot}
	}
	if u.Revision == (Revision{}) || p.pending != nil {
		whole.Upserts = append(whole.Upserts, u.Upserts...)
		whole.Removals = append(whole.Removals, u.Removals...)
		whole.Revision = u.Revision
	} else {
		whole = u // as most are
	}
	p.pending = nil
	if whole.Revision == (Revision{}) {
		p.pending = whole
		return nil
	}
	return whole
}
