//! numpy's legacy generator, continued: MT19937 (Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally
//! equidistributed uniform pseudo-random number generator", 1998) and the shuffle that
//! `numpy.random.RandomState` makes of its words. The state goes in and out, so that who shuffles natively leaves
//! the generator where numpy would have left it.

/// Words of the state.
pub const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// The generator with its place in the block of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mt19937 {
    words: [u32; WORDS],
    position: usize,
}

impl Mt19937 {
    /// Continues from a state of `RandomState.get_state()`; `None` when the position is no place in the words.
    pub fn new(words: [u32; WORDS], position: usize) -> Option<Mt19937> {
        (position <= WORDS).then_some(Mt19937 { words, position })
    }

    /// The state, as `RandomState.set_state` takes it.
    pub fn state(&self) -> (&[u32; WORDS], usize) {
        (&self.words, self.position)
    }

    fn refill(&mut self) {
        let words = &mut self.words;
        for i in 0..WORDS {
            let joined = words[i] & 0x8000_0000 | words[(i + 1) % WORDS] & 0x7fff_ffff;
            let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
            words[i] = words[(i + MIDDLE) % WORDS] ^ joined >> 1 ^ twist;
        }
        self.position = 0;
    }

    /// The next 32 bits.
    #[inline]
    pub fn word(&mut self) -> u32 {
        if self.position == WORDS {
            self.refill();
        }
        let mut y = self.words[self.position];
        self.position += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9d2c_5680;
        y ^= y << 15 & 0xefc6_0000;
        y ^ y >> 18
    }

    /// Uniform in `0..=max`: the lowest bits that `max` has, drawn until they are small enough.
    #[inline]
    fn up_to(&mut self, max: u32) -> u32 {
        // Without a draw where there is nothing to choose.
        let Some(mask) = u32::MAX.checked_shr(max.leading_zeros()) else { return 0 };
        loop {
            let value = self.word() & mask;
            if value <= max {
                return value;
            }
        }
    }

    /// `RandomState.shuffle` of a vector.
    ///
    /// # Panics
    /// When there are more than 2^32 values.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        assert!(u32::try_from(values.len().saturating_sub(1)).is_ok(), "as many values as 32 bits number");
        for i in (1..values.len()).rev() {
            let j = self.up_to(i as u32) as usize;
            values.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference code's seeding, which is `RandomState(seed)`'s for small seeds.
    fn seeded(seed: u32) -> Mt19937 {
        let mut words = [seed; WORDS];
        for i in 1..WORDS {
            let before = words[i - 1];
            words[i] = (before ^ before >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Mt19937::new(words, WORDS).expect("a position")
    }

    #[test]
    fn the_words_are_those_of_the_reference() {
        let mut generator = seeded(5489);
        assert_eq!(generator.word(), 3_499_211_612);
        // The 10,000th word that the C++ standard asks of mt19937.
        let last = (1..10_000).map(|_| generator.word()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn a_shuffle_is_numpy_s() {
        let mut values: Vec<u32> = (0..10).collect();
        // numpy.random.RandomState(0).permutation(10)
        seeded(0).shuffle(&mut values);
        assert_eq!(values, [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]);
    }

    #[test]
    fn nothing_is_drawn_where_nothing_is_to_be_chosen() {
        let mut generator = seeded(1);
        let before = generator.clone();
        generator.shuffle(&mut [7]);
        generator.shuffle::<u8>(&mut []);
        assert_eq!(generator, before);
        assert_eq!(Mt19937::new([0; WORDS], WORDS + 1), None);
    }
}
