import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import java.util.List;

/** A server that speaks MongoDB's protocol: TestMongo PORT FILE. Prints a line when it listens. */
class TestMongo {
    /** The least that the driver talks to. */
    record Version(List<Integer> getVersionArray, int getWireVersion) implements MongoVersion {
        public List<Integer> getVersionArray() { return getVersionArray; }
        public int getWireVersion() { return getWireVersion; }
    }

    public static void main(String[] arguments) {
        var backend = new H2Backend(arguments[1]);
        backend.version(new Version(List.of(4, 4, 0), 9));
        new MongoServer(backend).bind("127.0.0.1", Integer.parseInt(arguments[0]));
        System.out.println("listens");
    }
}
