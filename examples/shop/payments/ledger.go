package payments

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// Ledger keeps one file for each order that was charged, in a directory that all
// instances share. The name of the file is the claim: whichever instance links it first
// has charged the order, and a second charge finds the first one's receipt.
type Ledger struct{ dir string }

// OpenLedger uses the directory, making it if need be.
func OpenLedger(dir string) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	return &Ledger{dir: dir}, nil
}

// An order id becomes a file name, so it may not be a path.
var orderID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Book records a receipt for its order, or returns the one that was recorded before.
// Once it has returned, the receipt survives the end of this process.
func (l *Ledger) Book(r Receipt) (Receipt, error) {
	if !orderID.MatchString(r.Order) {
		return Receipt{}, fmt.Errorf("order id %q may hold letters, digits, dots, dashes and underscores only", r.Order)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return Receipt{}, err
	}
	// Written whole under another name first: nobody ever reads half a receipt.
	tmp, err := os.CreateTemp(l.dir, ".new-")
	if err != nil {
		return Receipt{}, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // its other name stays
	_, err = tmp.Write(body)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return Receipt{}, fmt.Errorf("writing the receipt of order %s: %w", r.Order, err)
	}
	path := filepath.Join(l.dir, r.Order+".json")
	switch err := os.Link(tmp.Name(), path); {
	case err == nil:
		return r, nil
	case errors.Is(err, fs.ErrExist):
		return read(path)
	default:
		return Receipt{}, fmt.Errorf("booking order %s: %w", r.Order, err)
	}
}

// All returns every receipt.
func (l *Ledger) All() ([]Receipt, error) {
	paths, err := filepath.Glob(filepath.Join(l.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Receipt
	for _, p := range paths {
		r, err := read(p)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func read(path string) (Receipt, error) {
	var r Receipt
	body, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("receipt %s: %w", filepath.Base(path), err)
	}
	return r, nil
}
