//! numpy's legacy generator, continued: MT19937 (Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally
//! equidistributed uniform pseudo-random number generator", 1998) and the shuffle and the uniform numbers that
//! `numpy.random.RandomState` makes of its words. The state goes in and out, so that who draws natively leaves the
//! generator where numpy would have left it.

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
        for i in 0..WORDS - MIDDLE {
            words[i] = words[i + MIDDLE] ^ twisted(words[i], words[i + 1]);
        }
        for i in WORDS - MIDDLE..WORDS - 1 {
            words[i] = words[i + MIDDLE - WORDS] ^ twisted(words[i], words[i + 1]);
        }
        words[WORDS - 1] = words[MIDDLE - 1] ^ twisted(words[WORDS - 1], words[0]);
        self.position = 0;
    }

    fn word(&mut self) -> u32 {
        if self.position == WORDS {
            self.refill();
        }
        self.position += 1;
        tempered(self.words[self.position - 1])
    }

    /// `RandomState.uniform`: each number has 53 bits, the upper ones of two words, and is scaled with two roundings.
    pub fn uniform(&mut self, low: f64, high: f64, values: &mut [f64]) {
        let range = high - low;
        for value in values {
            let (upper, lower) = (self.word() >> 5, self.word() >> 6);
            let bits = f64::from(upper) * 67_108_864.0 + f64::from(lower);
            *value = low + range * (bits / 9_007_199_254_740_992.0);
        }
    }

    /// `RandomState.shuffle` of a vector: from the last place on each is swapped with one of those up to it, whose
    /// number is the lowest bits of a word, of the first that is small enough.
    ///
    /// # Panics
    /// When there are more than 2^32 values.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        let last = u32::try_from(values.len().saturating_sub(1)).expect("as many values as 32 bits number");
        let (mut last, mut places) = (last, [0; WORDS]);
        while last > 0 {
            if self.position == WORDS {
                self.refill();
            }
            let mask = u32::MAX >> last.leading_zeros();
            // Numbers are drawn ahead of the swaps and all kept: whether a word is small enough cannot be foreseen,
            // and a jump that is guessed wrong takes longer than a word.
            let (mut drawn, mut next) = (0, last);
            for &word in &self.words[self.position..] {
                if next <= mask >> 1 {
                    break;
                }
                places[drawn] = tempered(word) & mask;
                let is_taken = places[drawn] <= next;
                drawn += usize::from(is_taken);
                next -= u32::from(is_taken);
                self.position += 1;
            }
            for (own, &other) in places[..drawn].iter().enumerate() {
                values.swap(last as usize - own, other as usize);
            }
            last = next;
        }
    }
}

/// A word of the next block before its distant neighbour is mixed in.
#[inline]
fn twisted(word: u32, neighbour: u32) -> u32 {
    let joined = word & 0x8000_0000 | neighbour & 0x7fff_ffff;
    joined >> 1 ^ (joined & 1).wrapping_neg() & 0x9908_b0df
}

/// A word of the state as it is given out.
#[inline]
fn tempered(mut y: u32) -> u32 {
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c_5680;
    y ^= y << 15 & 0xefc6_0000;
    y ^ y >> 18
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
        generator.refill();
        assert_eq!(tempered(generator.words[0]), 3_499_211_612);
        // The 10,000th word that the C++ standard asks of mt19937.
        (0..9_999 / WORDS).for_each(|_| generator.refill());
        assert_eq!(tempered(generator.words[9_999 % WORDS]), 4_123_659_995);
    }

    #[test]
    fn a_shuffle_is_numpy_s() {
        let mut values: Vec<u32> = (0..10).collect();
        // numpy.random.RandomState(0).permutation(10)
        seeded(0).shuffle(&mut values);
        assert_eq!(values, [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]);
    }

    #[test]
    fn uniform_numbers_are_numpy_s() {
        let mut values = [0.0; 3];
        // numpy.random.RandomState(0).uniform(-0.3, 0.7, 3)
        seeded(0).uniform(-0.3, 0.7, &mut values);
        assert_eq!(values, [0.24881350392732476, 0.4151893663724195, 0.3027633760716439]);
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
