"""What decides: selection, reward, gate, arms, rehearsal; no database write and no call but what is handed in."""
